// What Onestep uses of libtorch: tensors, their operators, modules; precompiled once. <torch/torch.h> costs each file six seconds
// more, for layers, optimizers and data loaders that nothing here uses.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>
#include <torch/utils.h>
