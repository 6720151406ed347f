// Command reliability runs the long reliability trials: it starts the real binary with simulated
// workers, breaks things under load, and counts what clients and ledger have in the end. It is a
// developer's program and no part of the product.
//
//	go run ./cmd/reliability -list      what there is
//	go run ./cmd/reliability R1         one trial: one JSON object on stdout, exit code 0 or 1
//	go run ./cmd/reliability -out FILE  all: JSON lines into FILE, a table at the end
//
// An experiment is one file, rNN.go, with one function, and one row in experiments. The function is given a
// trial: engines, workers and clients come from it and end with it, and what it finds goes into it
// (exactly, atMost, within, near, note, failf). An error that it returns means that it could not be carried out.
//
// Counts and correctness always fail a trial. Times are reported beside their limit and fail one only above
// three times of it: they depend on what else the machine does.
//
// It knows the binary, its config, its control socket and its ledger's tables, and no package of the engine but api.
package main
