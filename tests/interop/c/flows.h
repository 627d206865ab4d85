// The interface of ../ffi: a map is an int, and no map is -1.
#pragma once

#include <stdint.h>

// Returns a descriptor that the caller must close, or -1 with errno set.
int flows_open(const char *path);
// Returns 0, or -1 with errno set.
int flows_lookup(const int *map, uint32_t key, uint64_t *value);
// Takes the descriptor, and ignores -1.
void flows_close(int map);
