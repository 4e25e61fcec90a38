# Thin: each target is one or two commands that can be typed by hand.
CARGO ?= cargo
# Where tests may make namespaces, skipping them would be a silent failure.
PRIVILEGE := $(if $(filter 0,$(shell id -u)),STAUNCH_REQUIRE_PRIVILEGE=1)

.PHONY: help setup demo test bench fuzz soak lint shellcheck static

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1  \2/p' $(MAKEFILE_LIST)

setup: ## install the Debian packages that tests and demo run (as root)
	@scripts/setup.sh

demo: setup ## the main job, told in the terminal
	@$(CARGO) build --release --quiet --bin staunch --example demo
	@$(CARGO) run --release --quiet --example demo

test: setup ## every test, and the gate on what a decision costs; as root also those with a real kernel and real tools
	@CARGO=$(CARGO) scripts/build-static.sh
	$(PRIVILEGE) $(CARGO) test --workspace
	$(CARGO) bench --quiet --package staunch-scoring --bench decision

static: setup ## the static binary of the container image, where its target can be installed
	@CARGO=$(CARGO) scripts/build-static.sh

bench: ## benchmarks
	$(CARGO) bench --workspace

FUZZ_SECONDS ?= 30

fuzz: setup ## each fuzz target for FUZZ_SECONDS (30), from its seeds
	@CARGO=$(CARGO) scripts/fuzz.sh $(FUZZ_SECONDS)

SOAK_SECONDS ?= 600

soak: setup ## mixed load with faults for SOAK_SECONDS (600): no leak, no panic, no alert lost
	STAUNCH_SOAK_SECONDS=$(SOAK_SECONDS) $(PRIVILEGE) $(CARGO) test --release --test faults_system soak -- --nocapture

lint: ## format, warnings, licences, units, shell scripts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny check licenses bans sources
	scripts/check-units.sh
	$(MAKE) shellcheck

shellcheck: ## every shell script
	shellcheck -S warning .ci/run benches/peers/*.sh deploy/oci/*.sh deploy/github-action/*.sh scripts/*.sh tests/systemd/*.sh
