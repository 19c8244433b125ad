//! The bodies that need a device, on every device there is.

mod cpu {
    use lim_kernels::{DType, cpu::Cpu};

    use crate::{decode, fast_path};

    /// One for each instruction set of this processor.
    fn cpus() -> Vec<Cpu> {
        Cpu::each_isa(Some(2)).expect("two threads")
    }

    #[test]
    fn selects_as_the_reference() {
        for cpu in cpus() {
            fast_path::selects_as_the_reference(cpu, 200);
        }
    }

    #[test]
    fn roles_read_what_they_should() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for cpu in cpus() {
                decode::roles_read_what_they_should(cpu, dtype, 1e-5);
            }
        }
    }

    #[test]
    fn within_the_budget_all_is_full() {
        for cpu in cpus() {
            decode::within_the_budget_all_is_full(cpu, DType::BF16);
        }
    }

    #[test]
    fn foreign_buffers_are_refused() {
        for cpu in cpus() {
            decode::foreign_buffers_are_refused(cpu, DType::BF16);
        }
    }
}
