#!/usr/bin/env bash
# Whole models step by step on the SIMT runner against the CPU: every objective and prior, what the
# data become, the likelihoods of pixels, layers of images, optimisers, penalties and clipping: PROGRAM.
set -euo pipefail
program=$1

small=(compare --device cuda --data data/mnist --batch-size 8 --steps 2
  --set 'model.encoder.layers=[{type="linear",out=12,activation="tanh"}]'
  --set 'model.decoder.layers=[{type="linear",out=12,activation="softplus"}]'
  --set model.latent.size=4)

conv='model.encoder.layers=[{type="conv2d",out=3,kernel=4,stride=4},{type="batch_norm",activation="relu"},{type="flatten"},{type="dropout",rate=0.3}]'
deconv='model.decoder.layers=[{out=98,activation="relu"},{type="dropout",rate=0.3},{type="reshape",shape=[2,7,7]},{type="conv_transpose2d",out=3,kernel=2,stride=2},{type="batch_norm",activation="relu"}]'
pool='model.encoder.layers=[{type="conv2d",out=4,kernel=3,stride=2,padding=1},{type="group_norm",groups=2,activation="relu"},{type="max_pool2d",kernel=2},{type="avg_pool2d",kernel=7},{type="flatten"}]'
upsample='model.decoder.layers=[{out=49},{type="layer_norm",activation="elu"},{type="reshape",shape=[1,7,7]},{type="upsample",factor=4}]'
out='model.decoder.out={type="conv_transpose2d",kernel=2,stride=2}'
classifier='model.classifier.layers=[{out=8,activation="softplus"}]'

# One row: what is configured, as --set takes it, words apart.
rows=(
  'objective.samples=3'
  'objective.samples=2 objective.kl=mc'
  'objective.free_bits=0.01'
  'objective.type=iwae objective.samples=5'
  'objective.type=dreg objective.samples=5'
  'objective.type=capacity objective.capacity=3 objective.capacity_steps=10'
  'objective.type=beta_tc objective.beta=4'
  'objective.type=beta_tc objective.estimator=mss'
  'objective.type=mmd'
  'objective.type=mmd objective.kernel=rbf objective.beta=1'
  'objective.type=autoencoder'
  'objective.pixel_reduction=mean objective.latent_reduction=mean'
  'model.latent.prior=mixture model.latent.components=3'
  'model.latent.prior=vamp model.latent.components=3'
  'model.condition.on=label objective.samples=2'
  'data.encoder_transform=["log1p",{noise=0.2}]'
  'data.binarise=dynamic model.latent.scale=log_sigma'
  'model.likelihood.type=categorical model.likelihood.classes=4'
  'model.likelihood.type=categorical model.likelihood.classes=16 data.augment.shift=1'
  'model.likelihood.type=categorical model.likelihood.classes=2 objective.type=iwae objective.samples=3'
  'model.likelihood.type=categorical model.likelihood.classes=3 model.decoder.layers=[{type="linear",out=784,activation="tanh"},{type="reshape",shape=[1,28,28]}] model.decoder.out={type="conv2d",kernel=3,padding=1}'
  'data.dequantise=true model.likelihood.type=gaussian model.likelihood.sigma="global"'
  'data.dequantise=true model.likelihood.type=continuous_bernoulli data.augment.flip=0.5'
  'data.augment.flip=0.5 data.augment.shift=2 data.augment.noise=0.1'
  'data.binarise=dynamic data.augment.crop=3'
  'data.weights=balanced'
  'data.weights=balanced data.weighting=loss objective.free_bits=0.01'
  'data.weights=balanced data.weighting=loss objective.samples=2'
  'data.weights=balanced data.weighting=loss objective.type=iwae objective.samples=3'
  "objective.type=m2 objective.labelled_batch=5 model.condition.on=label data.labelled=20 $classifier"
  "$conv $deconv $out"
  "$pool $upsample"
  "$conv $deconv $out objective.samples=2 train.optimizer.type=adamw train.optimizer.weight_decay=0.1"
  'model.likelihood.type=laplace model.likelihood.sigma=global'
  'model.likelihood.type=beta_binomial'
  'model.likelihood.type=discretised_logistic model.likelihood.sigma=pixel'
  'model.likelihood.type=continuous_bernoulli'
  'model.likelihood.type=gaussian model.likelihood.sigma=pixel'
  'train.optimizer.type=rmsprop train.optimizer.momentum=0.5 train.optimizer.centered=true'
  'train.optimizer.type=sgd train.optimizer.momentum=0.9 train.optimizer.nesterov=true'
  'train.optimizer.type=adagrad train.l1=0.01 train.l2=0.1'
  'train.optimizer.type=adamax train.clip_norm=1 train.l2=0.1'
  'train.ema=0.9 train.clip_norm=1000000 model.latent.scale=log_sigma'
)
for row in "${rows[@]}"; do
  settings=()
  for setting in $row; do settings+=(--set "$setting"); done
  "$program" "${small[@]}" "${settings[@]}" >/dev/null || {
    echo "compare failed: $row"
    "$program" "${small[@]}" "${settings[@]}" || true
    exit 1
  }
done
echo "${#rows[@]} configurations agree with the CPU"
