//! The only file that knows which backends there are.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use burn::{backend::Autodiff, tensor::backend::AutodiffBackend};
use burn_peft_ops::{Kernels, Ops};
use burn_peft_train::BaseDtype;

use crate::{memory, ranks};

/// What a command does once its backend is a type.
pub(crate) trait Job {
    /// Runs it. `B` tracks gradients; its inner backend is for everything that needs none.
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops;
}

/// `--backend`: a name, and for GPUs which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackendChoice {
    kind: Kind,
    index: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flex,
    NdArray,
    Vulkan,
    Metal,
    Cuda,
}

const KINDS: [(&str, Kind); 5] = [
    ("flex", Kind::Flex),
    ("ndarray", Kind::NdArray),
    ("vulkan", Kind::Vulkan),
    ("metal", Kind::Metal),
    ("cuda", Kind::Cuda),
];

impl BackendChoice {
    /// Runs `job` on this backend.
    pub(crate) fn run(self, job: impl Job) -> Result<()> {
        match self.kind {
            Kind::Flex => on::<burn_flex::Flex>(job, Default::default()),
            Kind::NdArray => on::<burn_ndarray::NdArray<f32>>(job, Default::default()),
            #[cfg(feature = "vulkan")]
            Kind::Vulkan => on::<burn_wgpu::Vulkan<f32, i32>>(job, self.wgpu_device()),
            #[cfg(feature = "metal")]
            Kind::Metal => on::<burn_wgpu::Metal<f32, i32>>(job, self.wgpu_device()),
            #[cfg(feature = "cuda")]
            Kind::Cuda => on::<burn_cuda::Cuda<f32, i32>>(
                job,
                burn_cuda::CudaDevice::new(self.index.unwrap_or_else(own_gpu)),
            ),
            #[cfg(not(all(feature = "vulkan", feature = "metal", feature = "cuda")))]
            _ => bail!(
                "this build has no {self} backend; \
                 build it with `cargo build --release --features {self}`"
            ),
        }
    }

    /// The type of the base that suits it: the fastest that is accurate.
    pub(crate) fn default_dtype(self) -> BaseDtype {
        match self.kind {
            Kind::Cuda => BaseDtype::Bf16,
            // Vulkan cannot compute in bf16, and Qwen2's activations leave f16's range.
            Kind::Flex | Kind::NdArray | Kind::Vulkan | Kind::Metal => BaseDtype::F32,
        }
    }

    /// Bytes of memory that it has for this process, where that is known: a GPU does not tell through Burn.
    pub(crate) fn memory(self) -> Option<u64> {
        let (_, sharing) = ranks::on_this_host();
        let known = matches!(self.kind, Kind::Flex | Kind::NdArray);
        known.then(|| memory::total() / sharing as u64)
    }

    #[cfg(any(feature = "vulkan", feature = "metal"))]
    fn wgpu_device(self) -> burn_wgpu::WgpuDevice {
        match self.index {
            Some(index) => burn_wgpu::WgpuDevice::DiscreteGpu(index),
            None => burn_wgpu::WgpuDevice::DefaultDevice,
        }
    }
}

/// The GPU of this process: each rank of a machine has one of those that it sees.
#[cfg(feature = "cuda")]
fn own_gpu() -> usize {
    let (local_rank, _) = ranks::on_this_host();
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let visible = visible.split(',').filter(|name| !name.trim().is_empty());
    // A launcher may show each process its own alone.
    match visible.count() {
        0 => local_rank,
        visible => local_rank % visible,
    }
}

fn on<B: Kernels>(job: impl Job, device: B::Device) -> Result<()> {
    job.run::<Autodiff<B>>(device)
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        f.write_str(name.map_or("?", |(name, _)| name))
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => {
                let index = index
                    .parse()
                    .map_err(|_| format!("`{index}` is not the number of a device"))?;
                (name, Some(index))
            }
            None => (text, None),
        };
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let names = KINDS.map(|(name, _)| name).join(", ");
            return Err(format!("no backend `{name}`; there are {names}"));
        };
        if index.is_some() && matches!(kind, Kind::Flex | Kind::NdArray) {
            return Err(format!("the {name} backend has no numbered devices"));
        }
        Ok(Self { kind: *kind, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_a_name_and_for_gpus_a_number() {
        let cuda: BackendChoice = "cuda:1".parse().expect("a backend");
        assert_eq!((cuda.kind, cuda.index), (Kind::Cuda, Some(1)));
        for (text, named) in [
            ("tpu", "flex, ndarray"),
            ("cuda:x", "`x`"),
            ("flex:1", "numbered"),
        ] {
            let error = text.parse::<BackendChoice>().expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
