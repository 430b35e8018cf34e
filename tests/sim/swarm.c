/* The simulation as a command.
 *
 *   swarm [--OPTION N]...   one scenario, in one line; `swarm --help`
 *   swarm --table           all scenarios, as Markdown; --quick: without those
 *                           of a thousand nodes and more
 *   swarm --csv             the same as comma-separated values
 *   swarm --curve [--max N] 1 to 10,000 nodes, uniform and skewed, for plot
 *
 * Exit status 1 if a living node did not get everything. */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim.h"

/* Seeds whose mean is the result of a scenario. */
#define SEEDS 8

enum type { U32, U64, REAL, BOOL };

static const struct option {
	const char *name;
	enum type type;
	size_t at;
	const char *help;
} options[] = {
#define O(field, type, help)                                                   \
	{                                                                      \
#field, type, offsetof(struct sim_config, field), help         \
	}
	O(nodes, U32, "nodes at the start"),
	O(chunks, U32, "per blob, of 1 MiB"),
	O(blobs, U32, "wanted at once"),
	O(stripe, U32, "chunks; 0 = as in the daemon"),
	O(window, U32, "chunks that a node reads ahead"),
	O(max_active, U32, "background requests per member"),
	O(redirect, BOOL, "busy members answer with a redirect"),
	O(fanout, U32, "0 = as in the daemon"),
	O(runs, U32, "upstream at once; 0 = as in the daemon"),
	O(quantum, U32, "bytes"),
	O(link_mbit, REAL, "of a node, both ways"),
	O(origin, REAL, "the origin's uplink, in links"),
	O(rtt_ms, REAL, "between members"),
	O(origin_rtt_ms, REAL, "to the origin"),
	O(spread, REAL, "starts spread over so many bounds"),
	O(skew, BOOL, "uplinks of 0.5, 1 and 2 links"),
	O(slow, U32, "slow nodes"),
	O(slow_rate, REAL, "of a slow node, in links"),
	O(kill, U32, "nodes that die"),
	O(kill_at, REAL, "when, in bounds"),
	O(silent, BOOL, "they die without a reset (power loss)"),
	O(join, U32, "nodes that join"),
	O(join_at, REAL, "when, in bounds"),
	O(notice_s, REAL, "until all members know of a death"),
	O(seed, U64, "of the random numbers"),
#undef O
};

struct scenario {
	const char *name;
	struct sim_config cfg; /* differences; 0 = the default */
};

static const struct scenario scenarios[] = {
	{"1 node", {.nodes = 1}},
	{"2 nodes", {.nodes = 2}},
	{"4 nodes", {.nodes = 4}},
	{"8 nodes", {.nodes = 8}},
	{"16 nodes", {.nodes = 16}},
	{"16 nodes, 100 Mbit/s", {.nodes = 16, .link_mbit = 100}},
	{"8, arrivals over the download", {.nodes = 8, .spread = 1}},
	{"8, one slow (a tenth)", {.nodes = 8, .slow = 1}},
	{"16, one slow (a tenth)", {.nodes = 16, .slow = 1}},
	{"8, two killed half-way", {.nodes = 8, .kill = 2}},
	{"8, two lose power half-way", {.nodes = 8, .kill = 2, .silent = true}},
	{"8, two join half-way", {.nodes = 8, .join = 2}},
	{"8, 20 blobs of 6 chunks", {.nodes = 8, .chunks = 6, .blobs = 20}},
	{"8, skewed", {.nodes = 8, .skew = true}},
	{"16, skewed", {.nodes = 16, .skew = true}},
	{"64 nodes", {.nodes = 64}},
	{"64, 1024 chunks", {.nodes = 64, .chunks = 1024}},
	{"64, 20 blobs of 6 chunks", {.nodes = 64, .chunks = 6, .blobs = 20}},
	{"64, one blob of 6 chunks", {.nodes = 64, .chunks = 6}},
	{"100 nodes", {.nodes = 100}},
	{"100, skewed", {.nodes = 100, .skew = true}},
	{"100, 10 join, half-way", {.nodes = 100, .join = 10}},
	{"100, 10 killed half-way", {.nodes = 100, .kill = 10}},
	{"1000 nodes", {.nodes = 1000}},
	{"1000, skewed", {.nodes = 1000, .skew = true}},
	{"1000, 100 join half-way", {.nodes = 1000, .join = 100}},
	{"1000, 100 killed half-way", {.nodes = 1000, .kill = 100}},
	{"1000, 10 slow", {.nodes = 1000, .slow = 10}},
	{"10000 nodes", {.nodes = 10000}},
	{"10000, skewed", {.nodes = 10000, .skew = true}},
};

/* Many nodes get larger quanta, which make fewer events. */
static uint32_t quantum_of(uint32_t nodes)
{
	return nodes >= 3000 ? 256 << 10 : nodes >= 500 ? 128 << 10 : 64 << 10;
}

static uint32_t seeds_of(uint32_t nodes)
{
	return nodes >= 1000 ? 1 : nodes >= 100 ? 3 : SEEDS;
}

/* Means over the seeds, and the worst times and copies. */
struct outcome {
	struct sim_result mean;
	double worst_last, worst_copies;
};

static void run(const struct sim_config *cfg, uint32_t seeds,
		struct outcome *ret)
{
	struct sim_config c = *cfg;
	struct sim_result r, *m = &ret->mean;

	*ret = (struct outcome){0};
	for (uint32_t i = 0; i < seeds; i++, c.seed++) {
		sim_run(&c, &r);
		m->bound_s = r.bound_s;
		m->last += r.last / seeds;
		m->mean += r.mean / seeds;
		m->slow_last += r.slow_last / seeds;
		m->copies += r.copies / seeds;
		m->load += r.load / seeds;
		m->owned += r.owned / seeds;
		m->wasted += r.wasted / seeds;
		m->requests += r.requests;
		m->redirects += r.redirects;
		m->takeovers += r.takeovers;
		m->unfinished += r.unfinished;
		if (r.last > ret->worst_last)
			ret->worst_last = r.last;
		if (r.copies > ret->worst_copies)
			ret->worst_copies = r.copies;
	}
	m->requests /= seeds;
	m->redirects /= seeds;
	m->takeovers /= seeds;
}

static void fill(const struct scenario *sc, struct sim_config *ret)
{
	const struct sim_config *c = &sc->cfg;

	sim_defaults(ret);
	ret->nodes = c->nodes;
	ret->quantum = quantum_of(c->nodes);
	if (c->chunks)
		ret->chunks = c->chunks;
	if (c->blobs)
		ret->blobs = c->blobs;
	if (c->link_mbit > 0)
		ret->link_mbit = c->link_mbit;
	ret->spread = c->spread;
	ret->slow = c->slow;
	ret->kill = c->kill;
	ret->silent = c->silent;
	ret->join = c->join;
	ret->skew = c->skew;
}

static uint32_t all(bool csv, bool quick)
{
	uint32_t unfinished = 0;

	printf("%s\n", csv ? "scenario,last,worst,mean,copies,worst copies,"
			     "load,owned,redirects,takeovers"
			   : "| scenario | last node | worst seed | mean | "
			     "copies | worst | load | owned |\n"
			     "|---|---|---|---|---|---|---|---|");
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
		const struct scenario *sc = &scenarios[i];
		struct sim_config cfg;
		struct outcome o;

		if (quick && sc->cfg.nodes >= 1000)
			continue;
		fill(sc, &cfg);
		run(&cfg, seeds_of(cfg.nodes), &o);
		unfinished += o.mean.unfinished;
		if (csv)
			printf("\"%s\",%.3f,%.3f,%.3f,%.3f,%.3f,%.2f,%.2f,"
			       "%" PRIu64 ",%" PRIu64 "\n",
			       sc->name, o.mean.last, o.worst_last, o.mean.mean,
			       o.mean.copies, o.worst_copies, o.mean.load,
			       o.mean.owned, o.mean.redirects,
			       o.mean.takeovers);
		else
			printf("| %s | %.2f | %.2f | %.2f | %.3f | %.3f | "
			       "%.2f | %.2f |\n",
			       sc->name, o.mean.last, o.worst_last, o.mean.mean,
			       o.mean.copies, o.worst_copies, o.mean.load,
			       o.mean.owned);
		(void)fflush(stdout);
	}
	return unfinished;
}

/* Prints nodes, then last, mean, copies and load: uniform, then skewed. */
static uint32_t curve(uint32_t max)
{
	static const uint32_t counts[] = {1,   2,   4,	 8,    16,   32,   64,
					  128, 256, 512, 1000, 3000, 10000};
	uint32_t unfinished = 0;

	printf("# nodes last mean copies load, last mean copies load skewed\n");
	for (size_t i = 0; i < ARRAY_SIZE(counts) && counts[i] <= max; i++) {
		printf("%u", counts[i]);
		for (int skew = 0; skew < 2; skew++) {
			struct sim_config cfg;
			struct outcome o;

			sim_defaults(&cfg);
			cfg.nodes = counts[i];
			cfg.skew = skew;
			cfg.quantum = quantum_of(cfg.nodes);
			run(&cfg, seeds_of(cfg.nodes), &o);
			unfinished += o.mean.unfinished;
			printf(" %.3f %.3f %.4f %.3f", o.mean.last, o.mean.mean,
			       o.mean.copies, o.mean.load);
		}
		printf("\n");
		(void)fflush(stdout);
	}
	return unfinished;
}

static uint32_t one(const struct sim_config *cfg, uint32_t seeds)
{
	struct outcome o;
	const struct sim_result *m = &o.mean;

	run(cfg, seeds, &o);
	printf("last=%.3f worst=%.3f mean=%.3f copies=%.3f worst_copies=%.3f "
	       "load=%.2f owned=%.2f bound_s=%.2f",
	       m->last, o.worst_last, m->mean, m->copies, o.worst_copies,
	       m->load, m->owned, m->bound_s);
	if (m->slow_last > 0)
		printf(" slow=%.2f", m->slow_last);
	printf(" wasted=%.4f requests=%" PRIu64 " redirects=%" PRIu64
	       " takeovers=%" PRIu64 " unfinished=%u\n",
	       m->wasted, m->requests, m->redirects, m->takeovers,
	       m->unfinished);
	return m->unfinished;
}

static void help(void)
{
	printf("swarm --table [--quick] | --csv [--quick] | --curve [--max N]\n"
	       "swarm [--seeds N] [--OPTION N]...\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		printf("  --%-14s %s\n", options[i].name, options[i].help);
}

static int number(const char *text, double max, double *ret)
{
	char *end;

	if (!text)
		return -EINVAL;
	errno = 0;
	*ret = strtod(text, &end);
	/* Written so that a NaN fails. */
	if (errno || end == text || *end || !(*ret >= 0 && *ret <= max))
		return -EINVAL;
	return 0;
}

static int set(struct sim_config *cfg, const char *name, const char *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct option *o = &options[i];
		void *p = (char *)cfg + o->at;
		double v;
		int r;

		if (strcmp(o->name, name) != 0)
			continue;
		r = number(value, o->type == BOOL ? 1 : 1e9, &v);
		if (r < 0)
			return r;
		switch (o->type) {
		case U32:
			*(uint32_t *)p = (uint32_t)v;
			break;
		case U64:
			*(uint64_t *)p = (uint64_t)v;
			break;
		case REAL:
			*(double *)p = v;
			break;
		case BOOL:
			*(bool *)p = v > 0;
			break;
		}
		return 0;
	}
	return -ENOENT;
}

int main(int argc, char **argv)
{
	bool csv = false, table = false, quick = false, curves = false;
	double seeds = 1, max = 10000;
	struct sim_config cfg;
	int r = 0;

	sim_defaults(&cfg);
	for (int i = 1; i < argc && !r; i++) {
		const char *name = argv[i];

		if (!strcmp(name, "--help")) {
			help();
			return 0;
		}
		csv |= !strcmp(name, "--csv");
		table |= !strcmp(name, "--table");
		quick |= !strcmp(name, "--quick");
		curves |= !strcmp(name, "--curve");
		if (!strcmp(name, "--csv") || !strcmp(name, "--table") ||
		    !strcmp(name, "--quick") || !strcmp(name, "--curve"))
			continue;
		i++;
		if (!strcmp(name, "--seeds"))
			r = number(argv[i], 1000, &seeds);
		else if (!strcmp(name, "--max"))
			r = number(argv[i], 10000, &max);
		else
			r = strncmp(name, "--", 2) != 0
				    ? -EINVAL
				    : set(&cfg, name + 2, argv[i]);
		if (r < 0)
			(void)fprintf(stderr, "swarm: %s: %s\n", name,
				      r == -ENOENT ? "no such option"
						   : "needs a number");
	}
	if (!r && (seeds < 1 || !sim_possible(&cfg))) {
		(void)fprintf(stderr, "swarm: no such scenario\n");
		r = -EINVAL;
	}
	if (r < 0)
		return 2;
	if (csv || table)
		return all(csv, quick) != 0;
	if (curves)
		return curve((uint32_t)max) != 0;
	return one(&cfg, (uint32_t)seeds) != 0;
}
