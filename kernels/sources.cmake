# Every kernel file. nvcc compiles them for the GPU, the host compiler for the SIMT runner.
set(CUVAE_KERNEL_SOURCES
  activation.cu
  adam.cu
  arithmetic.cu
  bernoulli.cu
  data.cu
  elbo.cu
  gaussian.cu
  gaussian_kl.cu
  gemm.cu
  layer_pair.cu
  linear.cu
  linear_bottleneck.cu
  linear_dgrad_sample_kl.cu
  linear_nll.cu
  linear_sample_kl.cu
  linear_wgrad_adam.cu
  nll_with_grad.cu
  persistent.cu
  reduce.cu
  sample.cu
  sample_kl.cu
  shape.cu
  table.cu)
list(TRANSFORM CUVAE_KERNEL_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/kernels/")
