//! The bodies that need a device, on every device there is. With feature `cuda` a machine without a GPU fails.

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
    fn selects_from_the_largest() {
        fast_path::selects_from_the_largest(Cpu::new(Some(2)).expect("two threads"));
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
    fn what_does_not_belong_together_is_refused() {
        for cpu in cpus() {
            decode::what_does_not_belong_together_is_refused(cpu, DType::BF16);
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use lim_kernels::{DType, cuda::Cuda};

    use crate::{decode, fast_path};

    fn gpu() -> Cuda {
        Cuda::new(0, DType::BF16).expect("feature `cuda` is tested on a machine with a GPU")
    }

    #[test]
    fn selects_as_the_reference() {
        fast_path::selects_as_the_reference(gpu(), 1000);
    }

    #[test]
    fn selects_from_the_largest() {
        fast_path::selects_from_the_largest(gpu());
    }

    #[test]
    fn roles_read_what_they_should() {
        // Outputs are bfloat16, at most 1 in magnitude.
        decode::roles_read_what_they_should(gpu(), DType::BF16, 4e-3);
    }

    #[test]
    fn within_the_budget_all_is_full() {
        decode::within_the_budget_all_is_full(gpu(), DType::BF16);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        decode::what_does_not_belong_together_is_refused(gpu(), DType::BF16);
    }
}
