// Package cost turns usage and worker time into money: the dated price table, GPU-hours by
// share of wall clock, what the same requests would have cost elsewhere. It does no IO: time
// and state are arguments.
//
// Amounts are nano-dollars and unit prices nano-dollars per million tokens; a request is
// rounded once. What is not known is nil, never 0, and a loss is shown as a loss.
package cost
