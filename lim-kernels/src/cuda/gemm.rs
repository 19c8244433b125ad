//! Large matrix products through cublasLt, one plan per shape.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of_val;

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUstreamCaptureStatus;

use super::graph::outside_captures;
use super::{Buffer, Cuda};
use crate::{DType, Error, Result};

/// `out[rows][n] (+)= a[rows][k] w[n][k]^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Type of `a` and `w`.
    pub(super) dtype: DType,
    /// Type of `out`.
    pub(super) out: DType,
    /// Whether the product is added to what `out` holds.
    pub(super) add: bool,
}

/// Operands of a [`Product`] in device memory, of its shapes.
pub(super) struct Operands {
    pub(super) a: *const c_void,
    pub(super) w: *const c_void,
    pub(super) out: *mut c_void,
}

/// Enough for the split algorithms that the heuristic likes on Hopper.
const WORKSPACE: usize = 32 << 20;

/// The library, its workspace, and what it chose for the shapes seen so far.
pub(super) struct Gemm {
    handle: sys::cublasLtHandle_t,
    workspace: Buffer<u8>,
    plans: HashMap<Product, Plan>,
}

struct Plan {
    desc: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    w: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algo: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made by `plan`, used by no one else; a failed destruction leaks a few bytes.
        unsafe {
            _ = result::destroy_matrix_layout(self.out);
            _ = result::destroy_matrix_layout(self.w);
            _ = result::destroy_matrix_layout(self.a);
            _ = result::destroy_matmul_desc(self.desc);
        }
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: made by `open_gemm`; the plans that refer to it are gone.
        _ = outside_captures(|| unsafe { result::destroy_handle(self.handle) });
    }
}

type Failure = result::CublasError;

impl Cuda {
    /// Runs a product. The first of a shape asks the library for an algorithm, so run a step once before capturing it.
    ///
    /// `operands` must be device memory of the product's shapes, alive until the stream has run it.
    pub(super) fn product(&mut self, product: Product, operands: &Operands) -> Result<()> {
        let stream = self.launch_stream()?;
        let mut gemm = match self.gemm.take() {
            Some(gemm) => gemm,
            None => self.open_gemm()?,
        };
        let done = gemm.run(product, operands, stream);
        self.gemm = Some(gemm);
        done.map_err(|e| {
            let Product { rows, n, k, .. } = product;
            let reason = format!("cublasLt: {e} for [{rows}, {k}] x [{n}, {k}]^T");
            Error::Device { device: self.name(), reason }
        })
    }

    fn open_gemm(&mut self) -> Result<Gemm> {
        // SAFETY: looks for the library and loads it; nothing else uses the handle.
        if !unsafe { sys::is_culib_present() } {
            let reason =
                "libcublasLt was not found; prefill and steps of more than 8 sequences need it".into();
            return Err(Error::Device { device: self.name(), reason });
        }
        let failed = |reason: String| Error::Device { device: self.name(), reason };
        let status = self.stream().capture_status().map_err(|e| self.driver_error(e))?;
        if status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Err(failed("the first large product is in a capture: run the step once before".into()));
        }
        let handle = outside_captures(result::create_handle).map_err(|e| failed(format!("cublasLt: {e}")))?;
        let workspace = self.zeros(WORKSPACE, "cublasLt's workspace")?;
        Ok(Gemm { handle, workspace, plans: HashMap::new() })
    }
}

impl Gemm {
    fn run(&mut self, product: Product, operands: &Operands, stream: *mut c_void) -> Result<(), Failure> {
        if !self.plans.contains_key(&product) {
            let plan = plan(self.handle, product)?;
            self.plans.insert(product, plan);
        }
        let plan = &self.plans[&product];
        let (alpha, beta) = (1.0f32, if product.add { 1.0f32 } else { 0.0 });
        // SAFETY: the plan's objects are alive, the operands have the plan's shapes (see `product`), and the scales are
        // read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.desc,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                operands.w,
                plan.w,
                operands.a,
                plan.a,
                operands.out,
                plan.out,
                operands.out,
                plan.out,
                &plan.algo,
                self.workspace.ptr().cast(),
                WORKSPACE,
                stream.cast(),
            )
        }
    }
}

/// cublasLt counts columns first: our row-major `out[rows][n]` is its `n x rows`, so W comes first, transposed.
fn plan(handle: sys::cublasLtHandle_t, product: Product) -> Result<Plan, Failure> {
    let Product { rows, n, k, dtype, out, .. } = product;
    let desc = result::create_matmul_desc(
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        sys::cudaDataType_t::CUDA_R_32F,
    )?;
    let a = result::create_matrix_layout(code(dtype), k as u64, rows as u64, k as i64)?;
    let w = result::create_matrix_layout(code(dtype), k as u64, n as u64, k as i64)?;
    let out = result::create_matrix_layout(code(out), n as u64, rows as u64, n as i64)?;
    let preference = result::create_matmul_pref()?;
    // SAFETY: the objects were just made; the attributes are read before each call returns.
    let chosen = unsafe {
        result::set_matmul_desc_attribute(
            desc,
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
            (&raw const TRANSPOSED).cast(),
            size_of_val(&TRANSPOSED),
        )?;
        result::set_matmul_pref_attribute(
            preference,
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const WORKSPACE_BYTES).cast(),
            size_of_val(&WORKSPACE_BYTES),
        )?;
        let chosen = result::get_matmul_algo_heuristic(handle, desc, w, a, out, out, preference);
        result::destroy_matmul_pref(preference)?;
        chosen
    };
    Ok(Plan { desc, a, w, out, algo: chosen?.algo })
}

static WORKSPACE_BYTES: usize = WORKSPACE;
/// `CUBLAS_OP_T`, which cublasLt takes from the cuBLAS header.
static TRANSPOSED: i32 = 1;

fn code(dtype: DType) -> sys::cudaDataType_t {
    match dtype {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}
