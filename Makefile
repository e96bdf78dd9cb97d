# Holdfast needs Go, git and make; portability needs Node too, guests and engine compilers.
GO      ?= go
BIN     := bin
# The toolchain whose output is committed; another one gives other bytes.
WASM_GO := go1.26.8
export CGO_ENABLED = 0

.PHONY: help demo up build test conformance check bench bench-engine bench-fleet bench-languages modules guests engine fuzz race cross portability

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the whole story on this machine, ends with the proof
	$(BIN)/holdfast up --demo --once

up: build ## a fleet that stays up, with gentle load, until interrupted
	$(BIN)/holdfast up --demo

build: ## both binaries into bin/
	@mkdir -p $(BIN)
	$(GO) build -trimpath -o $(BIN)/ ./cmd/holdfast ./cmd/holdfastd

test: ## all tests that need nothing but Go
	$(GO) test ./...

conformance: ## OPA's 4,427 conformance cases, all of them (make test runs a share)
	$(GO) test -timeout 20m ./internal/regocases -all

race: ## the same under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race ./...

check: cross modules ## format, vet, staticcheck, every platform, generated files up to date
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@test -z "$$(git status --porcelain -- modules)" || { echo "generated files differ from their sources:"; git status --short -- modules; exit 1; }

cross: ## everything builds for linux and darwin, amd64 and arm64
	@for os in linux darwin; do for arch in amd64 arm64; do \
		echo "build $$os/$$arch"; GOOS=$$os GOARCH=$$arch $(GO) build ./... || exit 1; \
	done; done

portability: build ## the Rego modules in npm's opa-wasm, unchanged (needs Node and its registry, or a cache)
	./compiler/rego/portability/check $(BIN)/holdfast

modules: ## rebuilds the committed .wasm files from their sources
	GOTOOLCHAIN=$(WASM_GO) $(GO) generate ./modules/...

guests: build ## rebuilds every committed .wasm beside its source; wants the toolchains: eval "$$(.ci/toolchains/install)"
	./bench/guests/build
	./sdk/abi/example/build
	GOTOOLCHAIN=$(WASM_GO) ./sdk/guest/rebuild $(BIN)/holdfast
	$(GO) test ./sdk/guest/probe -run TestModulesAreAsBuilt -update
	GOTOOLCHAIN=$(WASM_GO) $(GO) generate ./modules/...
	@changed=$$(git status --porcelain -- 'sdk/guest/*.wasm' 'sdk/abi/*.wasm' 'bench/guests/*.wasm' 'modules/*.wasm' 'compiler/script/*.wasm'); test -z "$$changed" || \
		{ echo "modules that are not what their sources give:"; echo "$$changed"; exit 1; }

engine: ## rebuilds the module that runs TypeScript, from QuickJS's source; wants the toolchains and a Debian mirror
	./compiler/script/engine/build

bench: build ## the figures of the README, in one run
	$(GO) run ./bench

bench-engine: ## the engine's figures alone, and bench/results/*-engine.txt
	$(GO) run ./bench -parts engine

bench-fleet: build ## propagation over 1 to 200 edges, the kill switch, the memory of an edge
	$(GO) run ./bench -parts fleet

bench-languages: ## the three example policies in every language, and bench/results/*-languages.txt
	$(GO) run ./bench -parts languages

fuzz: ## every fuzz target for FUZZTIME each (default 10m)
	./.ci/fuzz $(or $(FUZZTIME),10m)
