// A program that uses libbpf and not bpf-pin. Each command uses a pin in one way.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

// BPF_F_PATH_FD, which the headers of Linux have from 6.5 on.
#define PATH_FD (1U << 14)

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int or_die(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static void *some_or_die(void *pointer, const char *what)
{
	if (!pointer)
		die(what);
	return pointer;
}

static unsigned int number(const char *text)
{
	return strtoul(text, NULL, 0);
}

static unsigned int map_id(int fd)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info);

	or_die(bpf_obj_get_info_by_fd(fd, &info, &size), "bpf_obj_get_info_by_fd");
	return info.id;
}

// Runs a program on a packet of zeroes.
static int run(int prog)
{
	char packet[64] = {};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));

	or_die(bpf_prog_test_run_opts(prog, &opts), "bpf_prog_test_run_opts");
	return opts.retval;
}

static void get(char **args)
{
	LIBBPF_OPTS(bpf_obj_get_opts, opts, .file_flags = BPF_F_RDONLY);
	int map = or_die(bpf_obj_get_opts(args[0], &opts), "bpf_obj_get_opts");
	__u32 key = number(args[1]);
	__u64 value;

	or_die(bpf_map_lookup_elem(map, &key, &value), "bpf_map_lookup_elem");
	printf("map %u: %llu\n", map_id(map), value);
	// The descriptor is read-only.
	if (bpf_map_update_elem(map, &key, &value, BPF_ANY) != -EPERM) {
		fputs("a read-only descriptor has written\n", stderr);
		exit(1);
	}
}

static void put(char **args)
{
	int map = or_die(bpf_obj_get(args[0]), "bpf_obj_get");
	__u32 key = number(args[1]);
	__u64 value = number(args[2]);

	or_die(bpf_map_update_elem(map, &key, &value, BPF_ANY), "bpf_map_update_elem");
	printf("map %u\n", map_id(map));
}

static void make(char **args)
{
	int map = or_die(bpf_map_create(BPF_MAP_TYPE_HASH, "of_c", 4, 8, 8, NULL), "bpf_map_create");
	__u32 key = number(args[1]);
	__u64 value = number(args[2]);

	or_die(bpf_map_update_elem(map, &key, &value, BPF_ANY), "bpf_map_update_elem");
	or_die(bpf_obj_pin(map, args[0]), "bpf_obj_pin");
	printf("map %u\n", map_id(map));
}

// Opens a map by its id, and stores the double of the key's value under the next key.
static void map_by_id(char **args)
{
	int map = or_die(bpf_map_get_fd_by_id(number(args[0])), "bpf_map_get_fd_by_id");
	__u32 key = number(args[1]);
	__u64 value;

	or_die(bpf_map_lookup_elem(map, &key, &value), "bpf_map_lookup_elem");
	key += 1;
	value *= 2;
	or_die(bpf_map_update_elem(map, &key, &value, BPF_ANY), "bpf_map_update_elem");
	printf("map %u\n", map_id(map));
}

// Holds a map with one entry until standard input ends.
static void hold(char **args)
{
	int map = or_die(bpf_map_create(BPF_MAP_TYPE_HASH, "of_c", 4, 8, 8, NULL), "bpf_map_create");
	__u32 key = number(args[0]);
	__u64 value = number(args[1]);

	or_die(bpf_map_update_elem(map, &key, &value, BPF_ANY), "bpf_map_update_elem");
	printf("map %u\n", map_id(map));
	fflush(stdout);
	getchar();
	key += 1;
	or_die(bpf_map_lookup_elem(map, &key, &value), "bpf_map_lookup_elem");
	printf("%llu\n", value);
}

// Opens NAME in DIRECTORY and pins it as NEW there, by the directory's descriptor.
static void pin_at(char **args)
{
#ifdef HAS_PATH_FD
	int dir = or_die(open(args[0], O_PATH | O_DIRECTORY | O_CLOEXEC), "open");
	LIBBPF_OPTS(bpf_obj_get_opts, get_opts, .file_flags = PATH_FD, .path_fd = dir);
	LIBBPF_OPTS(bpf_obj_pin_opts, pin_opts, .file_flags = PATH_FD, .path_fd = dir);
	int map = or_die(bpf_obj_get_opts(args[1], &get_opts), "bpf_obj_get_opts");

	or_die(bpf_obj_pin_opts(map, args[2], &pin_opts), "bpf_obj_pin_opts");
	printf("map %u\n", map_id(map));
#else
	fprintf(stderr, "%s: bpf_obj_pin_opts is of libbpf 1.3\n", args[0]);
	exit(1);
#endif
}

static struct bpf_map *map_of(struct bpf_object *object, const char *name)
{
	return some_or_die(bpf_object__find_map_by_name(object, name), name);
}

// Loads the object's only program, runs it once and prints the map that it counts in.
static struct bpf_program *load_and_run(struct bpf_object *object, struct bpf_map *map)
{
	struct bpf_program *prog;

	or_die(bpf_object__load(object), "bpf_object__load");
	prog = some_or_die(bpf_object__next_program(object, NULL), "bpf_object__next_program");
	run(bpf_program__fd(prog));
	printf("map %u\n", map_id(bpf_map__fd(map)));
	return prog;
}

static struct bpf_object *open_object(const char *path, const char *pin_root_path)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = pin_root_path);

	return some_or_die(bpf_object__open_file(path, &opts), "bpf_object__open_file");
}

// LIBBPF_PIN_BY_NAME: the object defines which maps are pinned, and under which names.
static void load(char **args)
{
	struct bpf_object *object = open_object(args[0], args[2]);

	load_and_run(object, map_of(object, args[1]));
}

// Sets the path of a pin, which libbpf reuses or creates.
static void set_pin_path(char **args)
{
	struct bpf_object *object = open_object(args[0], NULL);
	struct bpf_map *map = map_of(object, args[1]);

	or_die(bpf_map__set_pin_path(map, args[2]), "bpf_map__set_pin_path");
	load_and_run(object, map);
}

// Replaces a map of the object by an open map. libbpf's map then has the name of the open map.
static void reuse_fd(char **args)
{
	struct bpf_object *object = open_object(args[0], NULL);
	struct bpf_map *map = map_of(object, args[1]);
	int fd = or_die(bpf_obj_get(args[2]), "bpf_obj_get");

	or_die(bpf_map__reuse_fd(map, fd), "bpf_map__reuse_fd");
	load_and_run(object, map);
}

// Loads OBJECT, attaches its program to a device and pins program and link in DIRECTORY.
static void attach(char **args)
{
	struct bpf_object *object = open_object(args[0], NULL);
	struct bpf_program *prog = load_and_run(object, map_of(object, args[1]));
	struct bpf_link *link;
	char path[256];

	link = some_or_die(bpf_program__attach_xdp(prog, number(args[2])), "bpf_program__attach_xdp");
	snprintf(path, sizeof(path), "%s/prog", args[3]);
	or_die(bpf_program__pin(prog, path), "bpf_program__pin");
	snprintf(path, sizeof(path), "%s/link", args[3]);
	or_die(bpf_link__pin(link, path), "bpf_link__pin");
}

static void run_pinned(char **args)
{
	printf("returned %d\n", run(or_die(bpf_obj_get(args[0]), "bpf_obj_get")));
}

static void run_by_id(char **args)
{
	int prog = or_die(bpf_prog_get_fd_by_id(number(args[0])), "bpf_prog_get_fd_by_id");

	printf("returned %d\n", run(prog));
}

static void show_link(char **args)
{
	struct bpf_link *link = some_or_die(bpf_link__open(args[0]), "bpf_link__open");
	struct bpf_link_info info = {};
	__u32 size = sizeof(info);

	or_die(bpf_obj_get_info_by_fd(bpf_link__fd(link), &info, &size), "bpf_obj_get_info_by_fd");
	printf("link %u of program %u\n", info.id, info.prog_id);
	bpf_link__disconnect(link);
}

static const struct {
	const char *name;
	int args;
	void (*run)(char **args);
} commands[] = {
	{"get", 2, get},
	{"put", 3, put},
	{"make", 3, make},
	{"map_by_id", 2, map_by_id},
	{"hold", 2, hold},
	{"pin_at", 3, pin_at},
	{"load", 3, load},
	{"set_pin_path", 3, set_pin_path},
	{"reuse_fd", 3, reuse_fd},
	{"attach", 4, attach},
	{"run", 1, run_pinned},
	{"run_by_id", 1, run_by_id},
	{"link", 1, show_link},
};

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (argc == commands[i].args + 2 && !strcmp(argv[1], commands[i].name)) {
			commands[i].run(argv + 2);
			return 0;
		}
	}
	fprintf(stderr, "%s: no such command\n", argv[0]);
	return 2;
}
