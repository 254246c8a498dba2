//! Clipping by the norm over all gradients.
//!
//! Burn's own clipping works on each tensor alone, which changes the direction of the update.

use std::collections::HashSet;
use std::marker::PhantomData;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

/// Scales all gradients of `module` down together so that their joint L2 norm is at most `max_norm`,
/// as `torch.nn.utils.clip_grad_norm_` does; a `max_norm` of 0 leaves them as they are.
///
/// Returns the gradients and their norm *before* clipping, `None` where there are none. The norm is
/// summed per tensor on the device and over tensors in f64 on the host. A NaN or infinite norm
/// leaves the gradients unscaled: the caller must not apply them.
pub fn clip_grad_norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: GradientsParams,
    max_norm: f64,
) -> (GradientsParams, Option<f64>) {
    let mut squares = SquaredNorms::<B> {
        grads: &grads,
        seen: HashSet::new(),
        sums: Vec::new(),
    };
    module.visit(&mut squares);
    if squares.sums.is_empty() {
        return (grads, None);
    }
    // One transfer for all tensors: reading a value waits for the device.
    let sums = Tensor::cat(squares.sums, 0).into_data();
    let norm = sums.iter::<f64>().sum::<f64>().sqrt();

    // 1e-6: PyTorch's guard against division by zero.
    let coefficient = max_norm / (norm + 1e-6);
    if max_norm == 0.0 || !norm.is_finite() || coefficient >= 1.0 {
        return (grads, Some(norm));
    }
    (
        scale_gradients::<B, M>(module, grads, coefficient),
        Some(norm),
    )
}

/// Multiplies every gradient of `module`.
pub(crate) fn scale_gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: GradientsParams,
    coefficient: f64,
) -> GradientsParams {
    let mut scale = Scale::<B> {
        grads,
        seen: HashSet::new(),
        coefficient,
        backend: PhantomData,
    };
    module.visit(&mut scale);
    scale.grads
}

/// Sums the squares of each gradient; a parameter that the module holds twice counts once.
struct SquaredNorms<'a, B: AutodiffBackend> {
    grads: &'a GradientsParams,
    seen: HashSet<ParamId>,
    sums: Vec<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorms<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !self.seen.insert(param.id) {
            return;
        }
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            self.sums.push(grad.square().sum());
        }
    }
}

struct Scale<B> {
    grads: GradientsParams,
    seen: HashSet<ParamId>,
    coefficient: f64,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !self.seen.insert(param.id) {
            return;
        }
        if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) {
            self.grads
                .register(param.id, grad.mul_scalar(self.coefficient));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn::module::Module;
    use burn_flex::Flex;

    type B = Autodiff<Flex>;

    #[derive(Module, Debug)]
    struct Pair<B: burn::tensor::backend::Backend> {
        first: Param<Tensor<B, 1>>,
        second: Param<Tensor<B, 2>>,
    }

    fn pair(first: [f32; 2], second: [[f32; 1]; 2]) -> Pair<B> {
        let device = Default::default();
        Pair {
            first: Param::from_data(first, &device),
            second: Param::from_data(second, &device),
        }
    }

    fn grads(module: &Pair<B>, first: [f32; 2], second: [[f32; 1]; 2]) -> GradientsParams {
        let device = Default::default();
        let mut grads = GradientsParams::new();
        grads.register(
            module.first.id,
            Tensor::<Flex, 1>::from_data(first, &device),
        );
        grads.register(
            module.second.id,
            Tensor::<Flex, 2>::from_data(second, &device),
        );
        grads
    }

    fn values<const D: usize>(tensor: Tensor<Flex, D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    #[test]
    fn the_norm_is_over_all_gradients_and_scales_them_together() {
        let module = pair([0.0; 2], [[0.0]; 2]);
        let raw = grads(&module, [2.0, 4.0], [[4.0], [8.0]]);
        let (clipped, norm) = clip_grad_norm(&module, raw, 1.0);
        assert_eq!(norm, Some(10.0));
        let first = values(clipped.get::<Flex, 1>(module.first.id).unwrap());
        let second = values(clipped.get::<Flex, 2>(module.second.id).unwrap());
        for (found, raw) in first.iter().chain(&second).zip([2.0, 4.0, 4.0, 8.0]) {
            assert!((found - raw / (10.0 + 1e-6)).abs() < 1e-7, "{found}");
        }
    }

    #[test]
    fn a_norm_below_the_limit_and_a_limit_of_zero_change_nothing() {
        let module = pair([0.0; 2], [[0.0]; 2]);
        for max_norm in [100.0, 0.0] {
            let raw = grads(&module, [2.0, 4.0], [[4.0], [8.0]]);
            let (clipped, norm) = clip_grad_norm(&module, raw, max_norm);
            assert_eq!(norm, Some(10.0));
            assert_eq!(
                values(clipped.get::<Flex, 1>(module.first.id).unwrap()),
                [2.0, 4.0]
            );
        }
    }

    #[test]
    fn missing_gradients_are_not_an_error_and_nan_is_reported() {
        let module = pair([0.0; 2], [[0.0]; 2]);
        let (_, norm) = clip_grad_norm(&module, GradientsParams::new(), 1.0);
        assert_eq!(norm, None);
        let raw = grads(&module, [f32::NAN, 0.0], [[0.0], [0.0]]);
        assert!(clip_grad_norm(&module, raw, 1.0).1.is_some_and(f64::is_nan));
    }
}
