// Every grid kernel that the device has, by hand: a kernel that is not listed here cannot be launched there.
#pragma once

#include "worker/tensors/adamw_grid.h"
#include "worker/tensors/image_grid.h"
#include "worker/tensors/norm_grid.h"
#include "worker/tensors/resample_grid.h"
#include "worker/tensors/sum_grid.h"

namespace onestep {

template <class... Kernels>
struct KernelList {};

// Widths: packs of 16 bytes, and single values for numbers of channels that these do not divide.
using DeviceKernels = KernelList<
    NormForward<float, 4>, NormForward<float, 1>, NormForward<BFloat16, 8>, NormForward<BFloat16, 1>,
    NormBackward<float, 4>, NormBackward<float, 1>, NormBackward<BFloat16, 8>, NormBackward<BFloat16, 1>,
    ColumnSum<float, 4, float>, ColumnSum<float, 1, float>, ColumnSum<float, 1, BFloat16>, ColumnSum<BFloat16, 8, float>, ColumnSum<BFloat16, 1, float>,
    ResidualSum<float, 4>, ResidualSum<float, 1>, ResidualSum<BFloat16, 8>, ResidualSum<BFloat16, 1>,
    Resample<float, 4>, Resample<float, 1>, Resample<BFloat16, 8>, Resample<BFloat16, 1>,
    ScaleSamples<float>, ScaleSamples<BFloat16>, CombineSamples<float>, CombineSamples<BFloat16>,
    AddFloats, Diffuse, DrawNumbers, DmGradient, BlockSquares, LeafSquares, ClipDecision, AdamwUpdate>;

}  // namespace onestep
