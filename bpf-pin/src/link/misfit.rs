//! What the kernel would take for something else, or would not see at all.

use bpf_pin_sys as abi;

use crate::cause::Cause;
use crate::error::Result;

use super::LinkSpec;
use super::point::{Point, Uprobes};
use super::spec::Cookies;

impl LinkSpec<'_> {
    /// What [`create`](Self::create) refuses without a syscall.
    pub(crate) fn check(&self) -> Result<()> {
        match self.misfit() {
            Some(cause) => Err(self.error(cause.into())),
            None => Ok(()),
        }
    }

    fn misfit(&self) -> Option<Cause> {
        let (attach_type, target) = (self.attach_type, self.point.name());
        let is_not_for = |option| {
            Some(Cause::InvalidOption {
                option,
                problem: format!("is not for a {target}"),
            })
        };
        if let Point::Misfit(option) = self.point {
            return is_not_for(option);
        }
        if !self.point.fits(attach_type) {
            return Some(Cause::WrongTarget {
                attach_type,
                target,
            });
        }
        let is_ordered = self.point.is_ordered();
        if !is_ordered && self.position.is_some() {
            return is_not_for("position");
        }
        if !is_ordered && self.expected_revision != 0 {
            return is_not_for("expected_revision");
        }
        self.misfit_of_flags(is_ordered)
            .or_else(|| self.misfit_of_cookies(is_not_for))
    }

    fn misfit_of_flags(&self, is_ordered: bool) -> Option<Cause> {
        let has = |flag| self.flags & flag != 0;
        let what = match self.point {
            // What they announce would be the descriptor 0.
            _ if is_ordered && has(abi::BPF_F_LINK) => "BPF_F_LINK",
            _ if is_ordered && has(abi::BPF_F_REPLACE) => "BPF_F_REPLACE",
            // It would turn the descriptor of a position into somebody's id.
            _ if is_ordered && has(abi::BPF_F_ID) => {
                return Some(Cause::InvalidOption {
                    option: "flags",
                    problem: "have BPF_F_ID, which is for a position to say".to_owned(),
                });
            }
            Point::Uprobes(_) if has(abi::BPF_F_UPROBE_MULTI_PATH_FD) => {
                "BPF_F_UPROBE_MULTI_PATH_FD"
            }
            Point::Tracing | Point::RawTracepoint(_) if self.flags != 0 => {
                return Some(Cause::InvalidOption {
                    option: "flags",
                    problem: format!("are not for a {}", self.point.name()),
                });
            }
            _ => return None,
        };
        Some(Cause::NoDescriptor { what })
    }

    fn misfit_of_cookies(
        &self,
        is_not_for: impl Fn(&'static str) -> Option<Cause>,
    ) -> Option<Cause> {
        let count = match self.point {
            Point::Kprobes(functions) => Some(functions.len()),
            Point::Uprobes(uprobes) => Some(uprobes.offsets.len()),
            _ => None,
        };
        let uneven = |option, found: usize, count: usize| {
            (found != count && found != 0).then(|| Cause::InvalidOption {
                option,
                problem: format!("are {found}, and what they are for is {count}"),
            })
        };
        let takes_one = matches!(
            self.point,
            Point::Tracing | Point::RawTracepoint(_) | Point::PerfEvent(_)
        );
        let of_cookies = match (self.cookies, count) {
            (Cookies::One(_), _) if !takes_one => is_not_for("cookie"),
            (Cookies::Each(_), None) => is_not_for("cookies"),
            (Cookies::Each(cookies), Some(count)) => uneven("cookies", cookies.len(), count),
            _ => None,
        };
        of_cookies.or_else(|| match self.point {
            Point::Uprobes(Uprobes {
                offsets,
                ref_ctr_offsets,
                ..
            }) => uneven("ref_ctr_offsets", ref_ctr_offsets.len(), offsets.len()),
            _ => None,
        })
    }
}
