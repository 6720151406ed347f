// Command gatewaybench measures the gateway, with accounting and ledger on, beside nginx and the
// direct path to the same upstream, on this machine in one run: requests per second, CPU per
// request, added latency, CPU per stream. "make bench-gateway" runs it.
package main
