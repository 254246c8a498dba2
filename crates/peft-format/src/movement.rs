//! How far training moved each bias.

use burn_peft::LayerModule;
use serde::Serialize;

use crate::folder::AdapterFolder;

/// How far training moved one bias.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BiasMovement {
    /// The decoder layer.
    pub layer: usize,
    /// The module in it.
    pub kind: LayerModule,
    /// Mean of the absolute changes, `‖Δb‖₁ / dim(b)` (Ben Zaken et al. 2022, §3.3).
    pub mean_abs_change: f64,
}

impl AdapterFolder {
    /// How far each bias of a BEFT folder moved, by layer and module; empty for every other method.
    ///
    /// A bias that the base does not have is measured from zero.
    pub fn bias_movement(&self) -> Vec<BiasMovement> {
        let mean_abs = |values: &[f32]| {
            let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
            sum / values.len().max(1) as f64
        };
        let moved = |(layer, kind, values)| BiasMovement {
            layer,
            kind,
            mean_abs_change: mean_abs(values),
        };
        self.biases().into_iter().map(moved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beft::beft_bias_name;
    use crate::task::CAUSAL_BACKBONE;
    use crate::test_support::folder;
    use crate::{AdapterTensor, BeftOptions, MethodOptions};

    #[test]
    fn movement_is_the_mean_absolute_change() {
        let mut folder = folder(MethodOptions::Beft(BeftOptions::default()), &[]);
        for (layer, kind, values) in [
            (1, LayerModule::QProj, vec![1.0, -3.0]),
            (0, LayerModule::VProj, vec![0.5, 0.0, -0.25, 0.25]),
            (0, LayerModule::QProj, vec![0.0, 0.0]),
        ] {
            let tensor = AdapterTensor::new([1, values.len()], values);
            folder
                .tensors
                .insert(beft_bias_name(CAUSAL_BACKBONE, layer, kind), tensor);
        }
        let found: Vec<_> = folder
            .bias_movement()
            .into_iter()
            .map(|moved| (moved.layer, moved.kind, moved.mean_abs_change))
            .collect();
        assert_eq!(
            found,
            [
                (0, LayerModule::QProj, 0.0),
                (0, LayerModule::VProj, 0.25),
                (1, LayerModule::QProj, 2.0),
            ]
        );
    }
}
