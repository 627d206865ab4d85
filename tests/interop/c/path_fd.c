// Compiles only with libbpf 1.3 or later, which has bpf_obj_pin_opts with path_fd.
#include <bpf/bpf.h>

int main(void)
{
	LIBBPF_OPTS(bpf_obj_get_opts, get, .path_fd = -1);
	LIBBPF_OPTS(bpf_obj_pin_opts, pin, .path_fd = -1);

	return bpf_obj_get_opts("", &get) + bpf_obj_pin_opts(-1, "", &pin);
}
