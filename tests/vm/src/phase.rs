//! The privileges with which the whole suite runs, one after another.

/// One run of the whole suite in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// The name in the table and for `--phase`.
    pub name: &'static str,
    /// `BPF_PIN_TEST_PHASE` in the tests' environment.
    pub env: &'static str,
    /// The user that runs the tests.
    pub user: User,
    /// Written to `kernel.unprivileged_bpf_disabled` first; `None` leaves the kernel's own value.
    pub unprivileged_bpf_disabled: Option<u8>,
}

/// The user that runs the tests of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// uid 0 with every capability.
    Root,
    /// [`UID`] with `CAP_BPF`, permitted, effective and ambient, and nothing else.
    CapBpf,
    /// [`UID`] without capabilities.
    Nobody,
}

/// The user and group id of the unprivileged phases.
pub const UID: u32 = 1000;

const fn phase(name: &'static str, env: &'static str, user: User, disabled: Option<u8>) -> Phase {
    Phase {
        name,
        env,
        user,
        unprivileged_bpf_disabled: disabled,
    }
}

/// All phases in their order. 1 comes last because the kernel cannot leave it.
pub const PHASES: [Phase; 5] = [
    phase("root", "root", User::Root, None),
    phase("cap_bpf", "cap_bpf", User::CapBpf, None),
    phase("none/0", "none", User::Nobody, Some(0)),
    phase("none/2", "none", User::Nobody, Some(2)),
    phase("none/1", "none", User::Nobody, Some(1)),
];

/// The phase of that name.
#[must_use]
pub fn find(name: &str) -> Option<Phase> {
    PHASES.into_iter().find(|phase| phase.name == name)
}
