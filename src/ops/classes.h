#pragma once
// Labels and classes: softmax, log_softmax, one_hot, one_hot_cycle and label_rows.
//
// How a model uses them: the labels of a window stand beside its rows, u8 or i64 [W], a persistent
// input; `rows` [B] are batch_index's `row`, as gather takes them.
//   one_hot(labels, rows; classes)       [B, C] f32: what a conditional encoder and decoder
//                                        concatenate with x and z
//   label_rows(labels, rows)             [B, 1] f32: the target that categorical_nll takes for
//                                        logits [B, C]
//   one_hot_cycle(; rows, classes)       [N, C], row n of class n mod C: `sample` of every class,
//   or
//                                        every y for each x of M2 (x by repeat_rows, times = C)
//   softmax, log_softmax                 q(y | x) and its logarithm from logits [B, C], stable for
//                                        logits of any size
// A label that is no class makes a row of NaN (as it makes categorical_nll NaN): no step survives
// it unseen. Labels above 2^24 are no classes of anything and are rounded to floats by label_rows.

#include "ops/rules.h"

namespace cuvae {

std::int64_t classes_of(const Attrs& attrs);  // from 1 to 2^24; throws Error(usage)
// Of categorical_nll and categorical_mean (likelihoods/categorical.h, ClassLayout): 1 where it is
// not given; throws Error(usage).
std::int64_t inner_of(const Attrs& attrs);

}  // namespace cuvae
