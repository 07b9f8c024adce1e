// Trains the default VAE on MNIST with the installed library: train_mnist [data] [epochs]
#include <cuvae/dataset.h>
#include <cuvae/device.h>
#include <cuvae/run.h>
#include <cuvae/trainer.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  try {
    const cuvae::Config config = cuvae::preset_config("mnist-mlp");
    const auto data = std::make_shared<const cuvae::Dataset>(
        cuvae::load_dataset(argc > 1 ? argv[1] : "data/mnist"));
    const int epochs = argc > 2 ? std::stoi(argv[2]) : 5;

    const auto device = cuvae::open_device("auto");
    cuvae::Trainer trainer(config, data, *device);
    for (int epoch = 1; epoch <= epochs; ++epoch) {
      trainer.run(trainer.steps_per_epoch());
      if (const auto test = trainer.evaluate_test()) {
        std::printf("epoch %d: test neg_elbo %.2f nats (kl %.2f)\n", epoch, test->neg_elbo,
                    test->kl);
      }
    }
    cuvae::write_model("model.safetensors", trainer);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_mnist: %s\n", error.what());
    return 1;
  }
}
