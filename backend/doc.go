// Package backend wires the parts of the engine: pool of workers, gateway, ledger, windows,
// prompt tester. Backend runs them, publishes a whole Snapshot every tick and implements
// api.Source. Nothing is decided here that a part could decide for itself.
package backend
