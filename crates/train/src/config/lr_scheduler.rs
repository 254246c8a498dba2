//! The shapes of the learning rate, and their own options.

use burn_peft::options;

options! {
    /// The shape of the learning rate after the warm-up.
    pub enum LrSchedulerType {
        /// Straight down to 0 at the last step.
        Linear = "linear",
        /// Half a cosine down to 0 at the last step.
        Cosine = "cosine",
        /// The same several times, from the highest rate each time.
        CosineWithRestarts = "cosine_with_restarts",
        /// Half a cosine down to a rate above 0.
        CosineWithMinLr = "cosine_with_min_lr",
        /// A power of what is left of the run.
        Polynomial = "polynomial",
        /// As the inverse root of the steps.
        InverseSqrt = "inverse_sqrt",
        /// The highest rate to the end.
        Constant = "constant" | "constant_with_warmup",
    }
}

options! {
    /// `lr_scheduler_kwargs`: options of a shape, under the names of transformers' functions. Each shape has only some.
    pub struct LrSchedulerKwargs {
        /// Of the cosines: waves until the end (`0.5`); with restarts, how often the rate falls (`1`).
        pub num_cycles: Option<f64> = None;
        /// Of `"cosine_with_min_lr"`: the rate at the end.
        pub min_lr: Option<f64> = None;
        /// Of `"cosine_with_min_lr"`: the rate at the end as a share of the highest.
        pub min_lr_rate: Option<f64> = None;
        /// Of `"polynomial"`: the rate at the end (`1e-7`).
        pub lr_end: Option<f64> = None;
        /// Of `"polynomial"`: the power (`1`).
        pub power: Option<f64> = None;
        /// Of `"inverse_sqrt"`: after so many steps more the rate is 0.7 of the highest (`warmup_steps`, or 10000 without).
        pub timescale: Option<f64> = None;
    }
}

impl LrSchedulerKwargs {
    /// An option that is given and that this shape does not have, or a value that it cannot have, or lacks.
    pub(crate) fn fault(&self, kind: LrSchedulerType, rate: Option<f64>) -> Option<String> {
        use LrSchedulerType as Kind;
        let cosine = [
            Kind::Cosine,
            Kind::CosineWithRestarts,
            Kind::CosineWithMinLr,
        ];
        for (name, value, kinds) in [
            ("num_cycles", self.num_cycles, &cosine[..]),
            ("min_lr", self.min_lr, &[Kind::CosineWithMinLr]),
            ("min_lr_rate", self.min_lr_rate, &[Kind::CosineWithMinLr]),
            ("lr_end", self.lr_end, &[Kind::Polynomial]),
            ("power", self.power, &[Kind::Polynomial]),
            ("timescale", self.timescale, &[Kind::InverseSqrt]),
        ] {
            let Some(value) = value else { continue };
            if !kinds.contains(&kind) {
                return Some(format!("{name} is no option of \"{}\"", kind.name()));
            }
            let positive = name != "min_lr" && name != "min_lr_rate" && name != "lr_end";
            if !value.is_finite() || value < 0.0 || (positive && value == 0.0) {
                let expected = if positive { "above 0" } else { "0 or more" };
                return Some(format!("{name} is {value}, expected {expected}"));
            }
        }
        if kind == Kind::CosineWithMinLr && self.min_lr.is_some() == self.min_lr_rate.is_some() {
            return Some("\"cosine_with_min_lr\" takes one of min_lr and min_lr_rate".into());
        }
        let end = self.min_lr.or(self.lr_end);
        let too_high = end.zip(rate).is_some_and(|(end, rate)| end > rate)
            || self.min_lr_rate.is_some_and(|share| share > 1.0);
        too_high.then(|| "the rate at the end is above train.learning_rate".into())
    }
}

#[cfg(test)]
mod tests {
    use crate::RunConfig;

    #[test]
    fn each_shape_has_its_own_options() {
        for (settings, fault) in [
            (
                "lr_scheduler_type = \"cosine\"\nlr_scheduler_kwargs = { num_cycles = 1.5 }",
                None,
            ),
            (
                "lr_scheduler_type = \"cosine_with_min_lr\"\nlr_scheduler_kwargs = { min_lr_rate = 0.1 }",
                None,
            ),
            ("lr_scheduler_type = \"inverse_sqrt\"", None),
            ("lr_scheduler_kwargs = {}", None),
            (
                "lr_scheduler_kwargs = { power = 2 }",
                Some("power is no option of \"linear\""),
            ),
            (
                "lr_scheduler_type = \"cosine_with_min_lr\"",
                Some("takes one of min_lr and min_lr_rate"),
            ),
            (
                "lr_scheduler_type = \"polynomial\"\nlr_scheduler_kwargs = { power = 0.0 }",
                Some("power is 0, expected above 0"),
            ),
            (
                "learning_rate = 0.1\nlr_scheduler_type = \"polynomial\"\nlr_scheduler_kwargs = { lr_end = 0.2 }",
                Some("above train.learning_rate"),
            ),
            (
                "lr_scheduler_kwargs = { warmup = 3 }",
                Some("unknown field `warmup`"),
            ),
        ] {
            let read = RunConfig::parse(&format!("[train]\n{settings}"), "run.toml", &[]);
            match (fault, read) {
                (None, read) => {
                    let config = read.unwrap();
                    let again = RunConfig::parse(&config.to_toml().unwrap(), "again", &[]).unwrap();
                    assert_eq!(again.train, config.train, "{settings}");
                }
                (Some(fault), read) => {
                    let message = read.expect_err(settings).to_string();
                    assert!(message.contains("train.lr_scheduler_kwargs: "), "{message}");
                    assert!(message.contains(fault), "{settings}: {message}");
                }
            }
        }
    }
}
