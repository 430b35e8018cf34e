# peerd
#
#   make                   bin/peerd, bin/peerd.service, bin/swagger.yml
#   make check             unit tests, then the tests of tests/run-all
#   make check-unit        unit tests only
#   make bench             figures of docs/benchmarks.md, as ratios; as root
#   make bench-swarm       many nodes in a lab, beside BitTorrent; as root
#   make sim               the same in a simulation, up to 10,000 nodes
#   make fuzz              the fuzz targets, FUZZ_SECONDS each (clang)
#   make lint              clang-tidy, cppcheck, shellcheck, floors, headers,
#                          documents, format
#   make format            clang-format on every C file
#   make check-format      fails where make format would change something
#   make check-floors      no file includes a sibling or a higher floor
#   make check-docs        files that documents and comments name exist
#   make check-headers     every header compiles alone
#   make install           into $(DESTDIR)$(PREFIX)
#   make deb               a Debian package, into bin/
#   make build-image       the container image peerd:dev
#   make kind-create kind-deploy kind-delete
#                          peerd in a kind cluster on this machine
#   make ci-kind-random ci-kind-ctr
#                          a test workload on each of its nodes
#   make ci-lab-random ci-lab-ctr
#                          the same on three network namespaces
#   make clean
#
# Variables:
#   DEV=1                  more warnings, all of them errors
#   SANITIZE=address,undefined | thread
#   CC=clang               the other compiler
#   BUILD=build            where objects go, BIN=bin where results go
#   V=1                    show the commands
#
# Changed flags rebuild the files that they affect.

VERSION  ?= $(shell test -e .git && git describe --tags --always --dirty \
	2>/dev/null || echo 0.1.0)
CC       ?= cc
BUILD    ?= build
BIN      ?= bin
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZ_SECONDS ?= 20

FLOORS   := base store http fetch registry containerd p2p fs mount daemon
SRC      := $(foreach f,$(FLOORS),$(wildcard $(f)/*.c))
MAINSRC  := $(wildcard cmd/*.c)
HEADERS  := $(foreach f,$(FLOORS) cmd,$(wildcard $(f)/*.h))
UNIT     := $(wildcard tests/unit/test_*.c)
FUZZ     := $(wildcard tests/fuzz/fuzz_*.c)
HELPERS  := $(wildcard tests/lib/*.c) $(wildcard tests/bench/*.c)

# llhttp is a library on Debian 13; Debian 12 has its sources (node-llhttp).
LLHTTP   := $(shell pkg-config --exists libllhttp || echo api http llhttp)
PKGS     := fuse3 libcurl openssl libuv jansson $(if $(LLHTTP),,libllhttp)
PKGFLAGS := $(shell pkg-config --cflags $(PKGS)) \
	$(if $(LLHTTP),-isystem /usr/share/include/llhttp -DLLHTTP_STRICT_MODE=1)
LIBS     := $(shell pkg-config --libs $(PKGS)) -llmdb -lprotobuf-c -lresolv \
	-lpthread -lm

CFLAGS   ?= -O2 -g
BASEFLAGS := -std=gnu11 -I. -I$(BUILD) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-DFUSE_USE_VERSION=312 -DPEERD_VERSION='"$(VERSION)"' \
	-include base/banned.h -Wall -Wextra -fno-strict-aliasing \
	-fstack-protector-strong -fno-omit-frame-pointer $(PKGFLAGS)
ifndef SANITIZE
BASEFLAGS += -D_FORTIFY_SOURCE=2
endif
LDFLAGS  += -Wl,-z,relro,-z,now
ifdef SANITIZE
BASEFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=$(SANITIZE)
endif
ifdef DEV
BASEFLAGS += -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wformat=2 -Wvla -Wundef -Wwrite-strings -Wpointer-arith
ifneq (,$(findstring gcc,$(shell $(CC) --version | head -1 | tr A-Z a-z)))
BASEFLAGS += -Wjump-misses-init
endif
endif

ifeq ($(V),1)
Q :=
else
Q := @
say = @printf '  %-4s %s\n' $(1) $(2)
endif

PROTO   := $(wildcard containerd/*.proto)
OBJ     := $(SRC:%.c=$(BUILD)/%.o) $(PROTO:%.proto=$(BUILD)/%.pb-c.o) \
	$(LLHTTP:%=$(BUILD)/llhttp/%.o)
MAINOBJ := $(MAINSRC:%.c=$(BUILD)/%.o)
LIB     := $(BUILD)/libpeerd.a
WORKBIN := $(BIN)/peerd-random
UNITBIN := $(UNIT:tests/unit/%.c=$(BUILD)/tests/unit/%)
HELPBIN := $(HELPERS:%.c=$(BUILD)/%)
FUZZBIN := $(FUZZ:tests/fuzz/%.c=$(BUILD)/tests/fuzz/%)

.PHONY: deb build-image kind-create kind-deploy kind-delete ci-kind-random \
	ci-kind-ctr ci-lab-random ci-lab-ctr
.PHONY: all help check check-unit bench bench-swarm sim fuzz fuzz-run unit lint format check-floors \
	check-docs check-format check-headers install clean helpers FORCE tidy cppcheck shellcheck

all: $(BIN)/peerd $(BIN)/peerd.service $(BIN)/swagger.yml

help:
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

# The compile command is kept in a file; a change of it rebuilds everything.
FLAGS := $(CC) $(BASEFLAGS) $(CFLAGS) $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(FLAGS))' | cmp -s - $@ || \
		echo '$(subst ','\'',$(FLAGS))' > $@

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# containerd's messages.
$(BUILD)/%.pb-c.c $(BUILD)/%.pb-c.h &: %.proto
	$(call say,GEN,$(BUILD)/$*.pb-c.c)
	@mkdir -p $(@D)
	$(Q)protoc-c --c_out=$(BUILD) $<
$(BUILD)/%.pb-c.o: $(BUILD)/%.pb-c.c $(BUILD)/flags
	$(call say,CC,$<)
	$(Q)$(CC) $(filter-out -W%,$(BASEFLAGS)) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/containerd/containerd-msg.o: | $(PROTO:%.proto=$(BUILD)/%.pb-c.h)
.SECONDARY: $(PROTO:%.proto=$(BUILD)/%.pb-c.c)

$(BUILD)/llhttp/%.o: /usr/share/llhttp/%.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) -w $(CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BIN)/peerd: $(MAINOBJ) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# The workload that compares peerd with upstream; it needs only the floors base
# and http.
$(BIN)/peerd-random: $(BUILD)/deploy/workload/random.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -Wl,--as-needed -o $@ $^ $(LIBS)

$(BIN)/peerd.service: peerd.service
	@mkdir -p $(@D) && cp $< $@
$(BIN)/swagger.yml: docs/swagger.yml
	@mkdir -p $(@D) && cp $< $@

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/tests/lib/%: $(BUILD)/tests/lib/%.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/tests/bench/%: $(BUILD)/tests/bench/%.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
.PRECIOUS: $(BUILD)/%.o

helpers: $(HELPBIN) $(WORKBIN)
unit: $(UNITBIN)

check-unit: $(UNITBIN)
	prove --timer $(UNITBIN)

check: all helpers check-unit
	tests/run

# Simulates the real placement code with any number of nodes; see
# tests/sim/swarm.c.
SIMOBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/*.c))
$(BUILD)/tests/sim/swarm: $(SIMOBJ) $(BUILD)/p2p/placement.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lm

sim: $(BUILD)/tests/sim/swarm

bench-swarm: all helpers
	tests/bench/swarm

bench: all helpers
	tests/bench/run
	tests/bench/http

# Fuzz targets have their own objects in $(BUILD)/fuzz; each has a seed corpus in
# tests/fuzz/corpus/NAME. New inputs stay in $(BUILD).
fuzz:
	+$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=clang \
		SANITIZE=fuzzer-no-link,address,undefined CFLAGS="-O1 -g" \
		fuzz-run
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)
fuzz-run: $(FUZZBIN)
	$(Q)set -e; for f in $(FUZZBIN); do n=$${f##*/fuzz_}; \
		mkdir -p $(BUILD)/corpus/$$n; \
		echo "fuzz $$n"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -verbosity=0 \
			-artifact_prefix=$(BUILD)/corpus/$$n- -rss_limit_mb=2048 \
			$(BUILD)/corpus/$$n tests/fuzz/corpus/$$n; done

lint: check-floors check-docs check-format check-headers tidy cppcheck shellcheck

check-floors:
	scripts/check-floors

check-docs:
	scripts/check-docs

check-headers: $(HEADERS:%.h=$(BUILD)/headers/%.ok)
$(BUILD)/headers/%.ok: %.h $(BUILD)/flags
	@mkdir -p $(@D)
	@printf '#include "%s"\n' $< | $(CC) $(BASEFLAGS) -Werror -x c \
		-fsyntax-only -MMD -MP -MF $(@:.ok=.d) -MT $@ -
	@touch $@

# A file that passed is checked again only if the file, one of its headers or the
# checks change.
TIDYOK  := $(SRC:%.c=$(BUILD)/tidy/%.ok) $(MAINSRC:%.c=$(BUILD)/tidy/%.ok)
tidy: $(TIDYOK)
$(BUILD)/tidy/%.ok: %.c .clang-tidy Makefile | $(PROTO:%.proto=$(BUILD)/%.pb-c.h)
	$(call say,TIDY,$<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- $(BASEFLAGS) \
		2>$(@:.ok=.err) || { cat $(@:.ok=.err); exit 1; }
	@$(CC) $(BASEFLAGS) -MM -MP -MF $(@:.ok=.d) -MT $@ $< && touch $@

cppcheck:
	cppcheck --quiet --error-exitcode=1 --inline-suppr -j 2 --std=c11 \
		--enable=warning,performance,portability \
		--suppress=missingIncludeSystem --suppress=memleak \
		--suppress=resourceLeak --suppress=unknownMacro --suppress=readdirCalled \
		--suppress=normalCheckLevelMaxBranches \
		--suppress=nullPointerOutOfMemory:store/index-check.c \
		--library=posix \
		-I. $(SRC) $(MAINSRC)

shellcheck:
	@grep -rlIE '^#!.*(bash|bats|/sh)\b' .ci deploy scripts tests | \
		xargs shellcheck -x

FORMATTED := $(SRC) $(MAINSRC) $(HEADERS) $(UNIT) $(FUZZ) $(HELPERS)

format:
	clang-format -i $(FORMATTED)

check-format:
	clang-format --dry-run -Werror $(FORMATTED)

install: all
	install -D -m 755 $(BIN)/peerd $(DESTDIR)$(PREFIX)/bin/peerd
	install -D -m 644 docs/peerd.8 $(DESTDIR)$(PREFIX)/share/man/man8/peerd.8
	install -D -m 644 docs/swagger.yml $(DESTDIR)$(PREFIX)/share/doc/peerd/swagger.yml
	sed 's|/usr/local|$(PREFIX)|g' peerd.service | install -D -m 644 \
		/dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/peerd.service

# The same on three hosts of a lab (tests/lab), without a cluster.
ci-lab-random: all helpers
	tests/run tests/lab/63-random.bats
ci-lab-ctr: all helpers
	tests/run tests/lab/64-ctr.bats

deb:
	scripts/build-deb $(BIN)

build-image:
	scripts/build-image

# scripts/kind.sh COMMAND only prints the commands.
kind-create kind-deploy kind-delete:
	scripts/kind.sh -y $(@:kind-%=%)

ci-kind-random ci-kind-ctr:
	scripts/build-image --tool docker
	scripts/build-image --tool docker --workloads
	scripts/kind.sh -y create
	scripts/kind.sh -y deploy
	scripts/kind.sh -y $(@:ci-kind-%=%)

clean:
	rm -rf $(BUILD) $(BIN) compile_commands.json

-include $(OBJ:.o=.d) $(MAINOBJ:.o=.d) $(UNIT:%.c=$(BUILD)/%.d) \
	$(HEADERS:%.h=$(BUILD)/headers/%.d) $(TIDYOK:.ok=.d)
