//! Rejects options that the target of a spec does not have, and numbers that the kernel would take for a
//! descriptor.

use bpf_pin_sys as abi;

use crate::error::{Cause, Result};
use crate::types::AttachType;

use super::LinkSpec;
use super::spec::Operand;
use crate::types::LinkTarget;

impl LinkSpec<'_> {
    /// Makes the checks of [`create`](Self::create) that need no syscall.
    pub(crate) fn check(&self) -> Result<()> {
        self.validate().map_err(|cause| self.error(cause.into()))
    }

    fn validate(&self) -> Result<(), Cause> {
        let name = self.target_kind();
        let is_ordered = self.target.is_ordered();
        let count = match self.operand {
            Operand::Functions(functions) => Some(functions.len()),
            Operand::Uprobes(uprobes) => Some(uprobes.len()),
            _ => None,
        };
        let takes_cookie = matches!(
            (self.target, self.operand),
            (LinkTarget::Tracing { .. }, Operand::None)
                | (
                    LinkTarget::RawTracepoint { .. } | LinkTarget::PerfEvent { .. },
                    _
                )
        );
        let takes_xdp_flags = matches!(self.target, LinkTarget::Xdp { .. });
        if !self.takes_attach_type() {
            let problem = format!("{} cannot be used with a {name}", self.attach_type());
            return Err(Cause::invalid("attach_type", problem));
        }
        let unsupported = [
            ("xdp_flags", self.xdp_flags.is_some() && !takes_xdp_flags),
            ("session", self.session && count.is_none()),
            ("position", self.position.is_some() && !is_ordered),
            (
                "expected_revision",
                self.expected_revision != 0 && !is_ordered,
            ),
            ("cookie", self.cookie.is_some() && !takes_cookie),
            ("cookies", self.cookies.is_some() && count.is_none()),
        ];
        if let Some((option, _)) = unsupported.into_iter().find(|(_, is_given)| *is_given) {
            return Err(Cause::invalid(
                option,
                format!("cannot be set for a {name}"),
            ));
        }
        self.check_flags()?;
        if let Operand::Uprobes(uprobes) = self.operand {
            check_count("ref_ctr_offsets", uprobes.counters(), uprobes.len())?;
        }
        check_count(
            "cookies",
            self.cookies.map_or(0, <[u64]>::len),
            count.unwrap_or(0),
        )
    }

    fn target_kind(&self) -> &'static str {
        match (self.target, self.operand) {
            (LinkTarget::Tracing { .. }, Operand::Object(_)) => "program's function",
            (target, _) => target.description(),
        }
    }

    /// Returns whether the target has this attach type. The kernel decides by the attach type whether
    /// `link_create.target_fd` is a descriptor or a device index, and must not take one for the other.
    fn takes_attach_type(&self) -> bool {
        type A = AttachType;
        let attach_type = self.attach_type();
        match self.target {
            LinkTarget::Cgroup { .. } => attach_type
                .name()
                .is_some_and(|name| name.starts_with("CGROUP_") || name == "LSM_CGROUP"),
            LinkTarget::Netns { .. } => matches!(attach_type, A::FLOW_DISSECTOR | A::SK_LOOKUP),
            LinkTarget::Tcx { .. } => matches!(attach_type, A::TCX_INGRESS | A::TCX_EGRESS),
            LinkTarget::Netkit { .. } => {
                matches!(attach_type, A::NETKIT_PRIMARY | A::NETKIT_PEER)
            }
            LinkTarget::Sockmap { .. } => matches!(
                attach_type,
                A::SK_MSG_VERDICT
                    | A::SK_SKB_STREAM_PARSER
                    | A::SK_SKB_STREAM_VERDICT
                    | A::SK_SKB_VERDICT
            ),
            // For an extension the kernel ignores the attach type.
            LinkTarget::Tracing { .. } if matches!(self.operand, Operand::Object(_)) => true,
            LinkTarget::Tracing { .. } => matches!(
                attach_type,
                A::TRACE_RAW_TP
                    | A::TRACE_FENTRY
                    | A::TRACE_FEXIT
                    | A::TRACE_FSESSION
                    | A::MODIFY_RETURN
                    | A::LSM_MAC
            ),
            // The other targets have one attach type each.
            _ => true,
        }
    }

    fn check_flags(&self) -> Result<(), Cause> {
        let has = |flag| self.flags & flag != 0;
        let is_ordered = self.target.is_ordered();
        let problem = |problem: String| Err(Cause::invalid("flags", problem));
        let what = match self.target {
            // With these the kernel would read descriptor 0.
            _ if is_ordered && has(abi::BPF_F_LINK) => "BPF_F_LINK",
            _ if is_ordered && has(abi::BPF_F_REPLACE) => "BPF_F_REPLACE",
            // The kernel would take the descriptor of a position for an id.
            _ if is_ordered && has(abi::BPF_F_ID) => {
                return problem("contain BPF_F_ID, which is set by a position".to_owned());
            }
            LinkTarget::UprobeMulti { .. } if has(abi::BPF_F_UPROBE_MULTI_PATH_FD) => {
                "BPF_F_UPROBE_MULTI_PATH_FD"
            }
            LinkTarget::Tracing { .. } | LinkTarget::RawTracepoint { .. }
                if self.flags != 0 && !matches!(self.operand, Operand::Object(_)) =>
            {
                return problem(format!("cannot be set for a {}", self.target_kind()));
            }
            _ => return Ok(()),
        };
        Err(Cause::no_descriptor(what))
    }
}

/// Rejects a list unless it is empty or has one element for each function or probe point.
fn check_count(option: &'static str, found: usize, count: usize) -> Result<(), Cause> {
    if found == 0 || found == count {
        return Ok(());
    }
    let problem = format!("has {found} elements, expected {count} or none");
    Err(Cause::invalid(option, problem))
}
