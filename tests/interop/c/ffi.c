// The C side of a boundary at which a map is an int, and no map is -1.
#include <stdint.h>
#include <unistd.h>

#include <bpf/bpf.h>

// In Rust: extern "C" fn(*const c_char) -> Option<Map>, which the caller closes.
int flows_open(const char *path);
// In Rust: extern "C" fn(Option<Map>, *const c_char) -> c_int, which closes the map.
int flows_adopt(int map, const char *path);

// Returns the value of the key in the map pinned at path, or -1 if the map cannot be opened.
int64_t peer_lookup(const char *path, uint32_t key)
{
	uint64_t value = 0;
	int map = flows_open(path);

	if (map < 0)
		return map;
	if (bpf_map_lookup_elem(map, &key, &value))
		return -2;
	return close(map) ? -3 : (int64_t)value;
}

// A map with one entry.
int peer_map(uint32_t key, uint64_t value)
{
	int map = bpf_map_create(BPF_MAP_TYPE_HASH, "peer", sizeof(key), sizeof(value), 8, NULL);

	// libbpf returns minus an errno.
	if (map < 0)
		return -1;
	bpf_map_update_elem(map, &key, &value, BPF_ANY);
	return map;
}

// Fails to create a map.
int peer_no_map(void)
{
	return bpf_map_create(BPF_MAP_TYPE_HASH, "none", 0, 0, 0, NULL) < 0 ? -1 : -2;
}

// Passes a map to Rust, which pins and closes it. Returns 0 if it was pinned.
int peer_gives(const char *path, uint32_t key, uint64_t value)
{
	return flows_adopt(peer_map(key, value), path);
}
