// Whether this libbpf has bpf_obj_pin_opts with path_fd, which came with 1.3: where it has not, this
// does not compile.
#include <bpf/bpf.h>

int main(void)
{
	LIBBPF_OPTS(bpf_obj_get_opts, get, .path_fd = -1);
	LIBBPF_OPTS(bpf_obj_pin_opts, pin, .path_fd = -1);

	return bpf_obj_get_opts("", &get) + bpf_obj_pin_opts(-1, "", &pin);
}
