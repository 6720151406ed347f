// Package keys keeps the client keys that "vllmdeck keys" makes: their names, hashes and limits, in
// a database of their own in the state folder. A key's text is never stored, and never reaches the
// engine: whoever makes a key keeps it and hands in its hash.
//
// The package does not check requests; the gateway does, with what List gives. Whoever changes keys
// holds the state folder: the engine, or a command where none runs.
package keys
