# The two commands of the README are `make demo` and `make test`; both do all their set-up themselves.
# `make help` lists the rest.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the three programs and the shop, as `make demo` runs them
	$(CARGO) build --locked --workspace --bins

.PHONY: demo
demo: build ## a mesh with traffic: canary, restarts, a kill, live
	target/debug/outrigger demo $(DEMO)

.PHONY: test
test: ## the gate: installs what the tests need, runs all of them
	./.ci/test

.PHONY: soak
soak: ## the long forms of the tests
	OUTRIGGER_SOAK=1 ./.ci/test

.PHONY: fuzz
fuzz: ## what reads names, certificates, key sets and tokens of strangers, a minute each (OUTRIGGER_FUZZ_SECONDS)
	OUTRIGGER_FUZZ_SECONDS=$${OUTRIGGER_FUZZ_SECONDS:-60} OUTRIGGER_FUZZ_START=$${OUTRIGGER_FUZZ_START:-$$(date +%s)} \
	$(CARGO) test --locked -p outrigger-cli --test fuzz -- --nocapture

.PHONY: images
images: ## outrigger/proxy and outrigger/control-plane, FROM scratch, for the engine that is here (docker)
	./deploy/docker/images

.PHONY: planted
planted: ## plants a defect for each test suite and sees the suite turn red
	./.ci/planted/run

.PHONY: lint
lint: ## format, clippy, licences, bans and sources
	./.ci/lint

.PHONY: bench
bench: ## criterion benches of the pieces
	$(CARGO) bench --locked -p outrigger-benches

.PHONY: peers
peers: ## the pair of proxies beside HAProxy, nginx, Envoy and the libraries alone
	./benches/peers/compare

.PHONY: peers-before
peers-before: ## what a request costs with all of resilience on, beside the sidecar of an earlier commit
	./benches/peers/before

.PHONY: bench-observability
bench-observability: ## what metrics and one trace in a hundred cost a request, beside the sidecar before them
	./benches/observability/compare

.PHONY: peers-identity
peers-identity: ## what an access policy and a verified token cost a request, beside the same sidecars without
	./benches/peers/identity

.PHONY: resilience
resilience: ## the sidecar and Envoy before the same faulty origins
	./benches/resilience/compare

.PHONY: push
push: ## one control plane before a thousand sidecars: how long a change takes, and what it costs
	./benches/push/measure

.PHONY: ci
ci: ## what the gate runs on every change
	./.ci/run
