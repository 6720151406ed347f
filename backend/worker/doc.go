// Package worker looks after vLLM servers: one run loop each that starts, watches, drains,
// restarts and explains; and the Pool of them. It decides when; package launch knows how.
// It keeps the crash book, lays what an operator orders over the config's command lines, restarts a
// model's workers one after the other, and advises on settings.
//
// Each worker's fields belong to its loop alone. Readers get an atomic pointer to an immutable
// status, requests pass an atomic gate, and every order goes into the loop: nobody reads a
// state and then acts on it.
package worker
