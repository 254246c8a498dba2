//! Between an [`AdapterFolder`](crate::AdapterFolder) and the adapter modules of `burn-peft`.
