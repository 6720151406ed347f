// Package quotes takes out of an error message what it quotes of a request. What an upstream says of a failure goes
// into ledger, log and console, where nothing of a request may be; the rest of its words is what an operator needs.
package quotes
