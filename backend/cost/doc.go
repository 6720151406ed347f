// Package cost turns usage and worker time into money: the dated price table, GPU-hours by
// share of wall clock, what the same requests would have cost elsewhere. It does no IO: time
// and state are arguments.
package cost
