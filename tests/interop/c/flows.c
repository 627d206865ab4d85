// A C program that uses a library in Rust: prints the value of KEY in the map pinned at PIN.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "flows.h"

int main(int argc, char **argv)
{
	uint64_t value;
	int map;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PIN KEY\n", argv[0]);
		return 2;
	}
	map = flows_open(argv[1]);
	if (map == -1) {
		perror(argv[1]);
		return 1;
	}
	if (flows_lookup(&map, strtoul(argv[2], NULL, 0), &value)) {
		perror(argv[2]);
		flows_close(map);
		return 1;
	}
	printf("%" PRIu64 "\n", value);
	flows_close(map);
	return 0;
}
