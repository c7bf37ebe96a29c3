//! VolumeAttributesClass (follows `pkg/registry/storage/volumeattributesclass`).

use crate::strategy::Strategy;

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {}
