"""Small experiments and a model that misbehaves, for several tests."""

from genexp.config.schema import CONFIGS

EXPERIMENTS = sorted(
    str(file.relative_to(CONFIGS / "experiment").with_suffix("")) for file in (CONFIGS / "experiment").rglob("*.yaml")
)
FAST = ["batch_size=100", "metrics.parzen.n_samples=100", "log.every_steps=4"]
DIGITS = {  # every model that fits 8×8, in a size that trains in a second
    "ae": ["model.hidden=[32]", "model.latent_dim=5", "model.code_components=2"],
    "dae": ["model.latent_dim=32", "model.chains=20", "model.burn_in=5", "model.thinning=1"],
    "cae": ["model.latent_dim=32", "model.chains=20", "model.burn_in=5", "model.thinning=1"],
    "vae": ["model.hidden=[32]", "model.latent_dim=5", "metrics.iwae.n_samples=5"],
    "gan": ["model.generator_hidden=[32]", "model.discriminator_hidden=[16]", "model.latent_dim=8"],
    "stacked_gan": [
        *("model.generator_hidden=[32]", "model.front_hidden=[24]", "model.discriminator_hidden=[16]"),
        *("model.latent_dim=8", "model.pretrain_epochs=1", "model.generator_sigmoid_bias=-2"),
        *("model.generator_output_sparse=10", "optimizer.max_col_norm=1.9365"),
    ],
    "dcgan": ["model.channels=4", "model.latent_dim=8"],
    "stacked_dae": [
        *("model.hidden=[32,16]", "model.masking=[0.1,0.2]", "model.pretrain_epochs=1", "model.fine_tuning=true"),
        *("model.chains=20", "model.burn_in=5", "model.thinning=1"),
    ],
    "stacked_cae": ["model.hidden=[32,16]", "model.pretrain_epochs=1", "model.chains=20", "model.burn_in=4"],
    "gsn": ["model.hidden=[32,16]", "model.chains=20", "model.burn_in=4"],
    "dbn": [
        *("model.hidden=[32,16]", "model.pretrain_epochs=1", "model.persistent_chains=10"),
        *("model.chains=20", "model.burn_in=4", "model.thinning=2", "+metric@metrics.ais=ais"),
    ],
    "rbm": [
        "model.hidden=32",
        "model.chains=20",
        "model.burn_in=5",
        "model.thinning=1",
        "+metric@metrics.ais=ais",
        "metrics.ais.temperatures=50",
        "metrics.ais.burn_in=5",
    ],
    "dbm": [
        *("model.hidden=[32,16]", "model.pretrain_epochs=1", "model.chains=20", "model.burn_in=5", "model.thinning=1"),
        *("+metric@metrics.ais=ais", "metrics.ais.temperatures=50", "metrics.ais.burn_in=5"),
    ],
    "cyclegan": [  # without the classifiers, which take half a minute
        *("model.channels=4", "model.blocks=1", "model.discriminator_channels=4", "model.pool=7"),
        *("metric@metrics.parzen=parzen", "~metric@metrics.translation_accuracy"),
    ],
}
OTHER_SIZES = {"conv_gan"}  # tested on 32×32, by its experiment
AUTOENCODERS = ("ae", "dae", "cae", "vae", "stacked_dae", "stacked_cae", "rbm", "dbn", "dbm")
CHAINS = (
    "dae",
    "cae",
    "stacked_dae",
    "stacked_cae",
    "gsn",
    "rbm",
    "dbn",
    "dbm",
)  # models that sample by a Markov chain
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
UNRULY = '''
import multiprocessing.util, os, signal, sys
from pathlib import Path
import torch
from torch import nn
from genexp.models import Model, Outcome, Update


class Unruly(Model):
    """Does at its step `at` what its mode says."""

    sample_kind = "draw"

    def __init__(self, data, noise, *, mode: str, at: int):
        super().__init__()
        self.shape, self.mode, self.at, self.moves = data.shape, mode, at, 0
        if mode == "early" and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.image = nn.Linear(1, data.size, bias=False)

    def players(self):
        return {"image": self.image}

    def updates(self):
        return [Update(("image",), self.play)]

    def play(self, images):
        self.moves += 1
        if self.moves == self.at:
            match self.mode:
                case "raise":
                    raise RuntimeError("a mistake in the model")
                case "exit":
                    sys.exit(0)
                case "leave":
                    os._exit(0)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "late":  # when all is done
                    multiprocessing.util.Finalize(None, os._exit, args=(3,), exitpriority=1)
                case "long":
                    raise RuntimeError("x" * 300_000)
                case "once" if not Path("died").exists():
                    Path("died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "slow":
            __import__("time").sleep(0.05)
        return Outcome({"image": (images.flatten(1) - self.image.weight[:, 0]).square().sum(1).mean()}, {})

    def sample(self, n, generator, data):
        noise = torch.randn(n, self.image.weight.numel(), generator=generator, device=generator.device)
        return (self.image.weight[:, 0] + 0.1 * noise).view(n, *self.shape).clamp(0, 1)
'''
