// Command vllmdeck is the operations console for self-hosted vLLM: console, engine, worker
// shim and simulator in one static binary. Each subcommand is one file.
package main
