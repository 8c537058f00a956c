//! Which tests a kernel can run.
//!
//! Those of `tests/tests/kernels.rs` know what to expect of every kernel. The others were written for kernels that can
//! load the programs, some for such as have tcx.

use guard_tests::vm::Kernel;

/// Tests for a kernel that the agent refuses.
const TOO_OLD: &[(&str, &[&str])] = &[(
    "kernels",
    &["the_agent_starts_or_says_in_one_line_why_this_kernel_will_not_do"],
)];

/// Tests for every kernel that can load the programs.
const ANY: &[(&str, &[&str])] = &[
    (
        "kernels",
        &[
            "a_real_loop_is_cut_and_other_names_are_answered",
            "every_hook_takes_a_program_or_the_agent_says_what_it_does_instead",
            "tcx_and_nothing_else_starts_or_says_that_the_kernel_has_none",
            "the_agent_starts_or_says_in_one_line_why_this_kernel_will_not_do",
        ],
    ),
    (
        "kernel",
        &[
            "answers::an_answer_made_in_the_kernel_is_the_one_that_other_libraries_build",
            "budgets::a_query_over_budget_is_answered_as_other_libraries_would",
            "every_program_stays_within_the_verifiers_budget",
            "marks::the_answer_is_spelled_as_the_client_spelled_it",
            "passes::fragments_pass_and_are_counted",
            "state::the_counters_add_up",
        ],
    ),
    (
        "hooks",
        &["a_veth_is_guarded_by_clsact", "a_veth_is_guarded_by_xdp_in_its_driver"],
    ),
    (
        "faults",
        &[
            "agent::an_agent_that_is_killed_and_started_again_costs_nobody_anything",
            "agent::an_agent_that_is_killed_for_its_memory_leaves_its_policy_in_force",
        ],
    ),
    ("fuzz", &["the_kernel_object_does_what_the_judge_does_natively"]),
];

/// Tests for kernels with tcx, which came with 6.6.
const TCX: &[(&str, &[&str])] = &[(
    "hooks",
    &["a_veth_is_guarded_by_generic_xdp", "a_veth_is_guarded_by_tcx"],
)];

/// What runs in one guest.
pub(super) struct Plan {
    /// Test binaries, and the full names of their tests.
    binaries: Vec<(&'static str, Vec<&'static str>)>,
}

impl Plan {
    pub(super) fn of(kernel: Kernel) -> Self {
        let parts: &[_] = match kernel {
            Kernel::V5_10 => &[TOO_OLD],
            Kernel::V6_1 => &[ANY],
            Kernel::V6_12 | Kernel::Newest => &[ANY, TCX],
        };
        let mut binaries: Vec<(&str, Vec<&str>)> = Vec::new();
        for (binary, tests) in parts.iter().copied().flatten() {
            match binaries.iter_mut().find(|(known, _)| known == binary) {
                Some((_, known)) => known.extend(*tests),
                None => binaries.push((binary, tests.to_vec())),
            }
        }
        Self { binaries }
    }

    /// Only the tests whose name contains this.
    pub(super) fn only(mut self, filter: &str) -> Self {
        for (_, tests) in &mut self.binaries {
            tests.retain(|test| test.contains(filter));
        }
        self.binaries.retain(|(_, tests)| !tests.is_empty());
        self
    }

    /// How many tests that is.
    pub(super) fn tests(&self) -> usize {
        self.binaries.iter().map(|(_, tests)| tests.len()).sum()
    }

    /// The command of each binary; `place` says where it is.
    pub(super) fn commands(&self, place: impl Fn(&str) -> String) -> Vec<String> {
        let command = |(binary, tests): &(&str, Vec<&str>)| {
            format!(
                "{} --include-ignored --test-threads=1 --nocapture --exact {}",
                place(binary),
                tests.join(" ")
            )
        };
        self.binaries.iter().map(command).collect()
    }

    #[cfg(test)]
    pub(super) fn two_tests() -> Self {
        Self {
            binaries: vec![("some", vec!["one", "two"])],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_run_once_with_all_its_tests() {
        let commands = Plan::of(Kernel::Newest).commands(|binary| format!("/{binary}"));
        let hooks: Vec<_> = commands.iter().filter(|line| line.starts_with("/hooks ")).collect();
        assert_eq!(hooks.len(), 1);
        assert!(hooks[0].ends_with("a_veth_is_guarded_by_generic_xdp a_veth_is_guarded_by_tcx"));
        assert_eq!(Plan::of(Kernel::V5_10).tests(), 1);
        let one = Plan::of(Kernel::Newest).only("counters");
        assert_eq!(one.commands(str::to_owned).len(), 1);
        assert_eq!(one.tests(), 1);
    }
}
