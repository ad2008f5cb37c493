"""The sections of a run beside its model: data, optimizer, budget, evaluation, execution.

Each field says its unit and meaning in the line below it.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lmray.config.section import Count, Section, integral


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_ROUNDING = 1e-6
"""What the shares of phases, written as decimals, may miss one by."""


class BatchPhase(Section):
    """A part of the budget with a batch of its own."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of budget.tokens."""
    batch_size: Count = 32
    """In data.batch_unit."""


class LengthPhase(Section):
    """A part of the budget with shorter sequences."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of budget.tokens."""
    context_length: Count = 64
    """Tokens of each sequence, at most model.context_length."""


class Data(Section):
    """Where the tokens are and how many a step takes."""

    tokens: str = "tokens/tinystories"
    """Directory of the token dataset; what is in it, not where it is, enters the run id."""
    batch_size: Count = 128
    """Sequences in one optimizer step, over all workers; or tokens, as batch_unit says."""
    batch_unit: Literal["sequences", "tokens"] = "sequences"
    """What batch_size counts; so many tokens are whole sequences, of whatever length."""
    batch_ramp: Annotated[tuple[BatchPhase, ...], BeforeValidator(_tuple)] = ()
    """Phases before the batch has batch_size, which all the rest of the budget has; a phase begins
    with the first step before which the shares of earlier ones are spent."""
    length_ramp: Annotated[tuple[LengthPhase, ...], BeforeValidator(_tuple)] = ()
    """Phases before sequences have model.context_length, as in batch_ramp. With batch_unit=tokens a
    step has more of the shorter ones."""

    @model_validator(mode="after")
    def _ramps_end(self) -> "Data":
        for key, phases in (("batch_ramp", self.batch_ramp), ("length_ramp", self.length_ramp)):
            total = sum(phase.share for phase in phases)
            if total > 1 - _ROUNDING:
                raise ValueError(
                    f"the shares of data.{key} make {total:g} and leave nothing to train at full "
                    f"size; make them less than 1 together"
                )
        return self


class Phase(Section):
    """A part of the budget in which the learning rate goes from one value to another."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the budget; those of all phases make one."""
    start: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Learning rate at its begin, as a fraction of the peak."""
    end: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Learning rate at its end, as a fraction of the peak."""
    shape: Literal["linear", "cosine"] = "linear"
    """A straight line, or half a cosine."""


class Optim(Section):
    """The optimizer, its learning rate over the budget, and clipping."""

    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate, of all that matrix_lr is not for."""
    name: Literal["adamw", "muon", "normuon", "sgd"] = "adamw"
    """muon and normuon move the matrices between embeddings and head, AdamW the rest."""
    matrix_lr: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Peak learning rate of Muon's matrices; times sqrt(rows / columns) for the tall ones."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of Muon's and SGD's mean of gradients."""
    schedule: Literal["cosine", "linear", "constant", "wsd", "phases"] = "cosine"
    """After the warm-up; wsd stays at the peak and then falls linearly over decay_fraction."""
    precision: Literal["fp32", "tf32", "bf16", "bf16_weights"] = "fp32"
    """tf32 rounds the factors of products, bf16 multiplies under autocast; with bf16_weights the
    weights are bf16 too, and the optimizer keeps fp32 copies beside its state."""
    min_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate at the end of the budget, as a fraction of the peak."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the budget over which the learning rate rises linearly."""
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the budget, its last, over which wsd falls."""
    phases: Annotated[tuple[Phase, ...], BeforeValidator(_tuple)] = ()
    """The whole of schedule=phases, in order; warm-up and end are phases too."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of AdamW's mean of squared gradients, and of NorMuon's of squared rows."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay per unit of learning rate."""
    no_decay: Literal["none", "norms", "norms+embeddings"] = "none"
    """Parameters without weight decay: none, all but matrices (norms), or embeddings as well."""
    clip_norm: Annotated[float, Field(gt=0)] | Literal["none"] = 1.0
    """Largest global L2 norm a gradient keeps."""

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> "Optim":
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"optim.warmup_fraction={self.warmup_fraction} and optim.decay_fraction="
                f"{self.decay_fraction} are more than the whole budget; lower one of them"
            )
        total = sum(phase.share for phase in self.phases)
        if (self.schedule == "phases" or self.phases) and abs(total - 1) > _ROUNDING:
            raise ValueError(
                f"the shares of optim.phases make {total:g} and not 1; change one of them, "
                f"as in [{{'share': 0.1, 'start': 0.0}}, {{'share': 0.9, 'end': 0.0}}]"
            )
        if self.phases and self.schedule != "phases":
            raise ValueError(
                f"optim.phases is given and optim.schedule={self.schedule} does not read it; "
                f"set optim.schedule=phases"
            )
        return self


class Budget(Section):
    """How long a run trains: up to the first limit it reaches, where its schedule ends."""

    tokens: Count = 327_680_000
    """Training tokens, over all workers."""
    steps: Count | Literal["none"] = "none"
    """Optimizer steps."""
    flops: Annotated[float, Field(gt=0)] | Literal["none"] = "none"
    """Floating-point operations of the training's matrix products, forward and backward."""
    seconds: Annotated[float, Field(gt=0)] | Literal["none"] = "none"
    """Wall time over all lives of the run, with evaluations, the last one too, and checkpoints."""


_MOST_PROMPTS = 16


class Evaluation(Section):
    """When validation loss is measured, and on what."""

    interval_tokens: Count = 16_384_000
    """Training tokens between evaluations on the prefix; the whole split is read at the end."""
    prefix_tokens: Count = 262_144
    """Validation tokens of the fixed prefix, the first windows of the split."""
    prompts: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ("",)
    """Texts that the model writes on from at each evaluation, into samples.jsonl; an empty one
    begins a document. No part of the run id, for they change nothing of the curve."""
    sample_tokens: Annotated[int, Field(ge=1, le=1024), BeforeValidator(integral)] = 64
    """Tokens written after each prompt at most, all prompts at once; no part of the run id."""

    @model_validator(mode="after")
    def _samples_are_few(self) -> "Evaluation":
        if len(self.prompts) > _MOST_PROMPTS:
            raise ValueError(
                f"evaluation.prompts holds {len(self.prompts)} texts and training waits for what "
                f"is written after them; keep at most {_MOST_PROMPTS}, and draw more samples with "
                f"`lmray generate`"
            )
        return self


class Execution(Section):
    """How a run is carried out; nothing here is part of the experiment or of the run id."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is cuda where there is a GPU."""
    workers: Count = 1
    """Processes that share each global batch; more than one goes through Ray Train."""
    gpu_share: Annotated[float, Field(ge=1e-4, le=1)] = 1.0
    """Share of a GPU that a trial of a sweep asks for, and of its memory that a training keeps to;
    1/n of it lets n of them run at once. `lmray train` keeps to the memory, too."""
    micro_batch: Count | Literal["auto"] = "auto"
    """Sequences a worker computes at once, adding up gradients; auto is all of its share. Halved,
    and the run goes on, when the device has no memory for them."""
    compile: Literal["off", "default", "max-autotune"] = "off"
    """torch.compile and its mode; on a CPU it needs a C++ compiler. Its time is recorded apart."""
    threads: Count | Literal["auto"] = "auto"
    """CPU threads of a worker; auto is the cores it may use, shared among the workers."""
    checkpoint_interval_steps: Count = 500
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints kept; the one of the final step is among them."""
    keep_best: bool = False
    """Keep the checkpoint of the lowest validation loss on the prefix too: one is written after
    each evaluation that finds a lower one."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time, on a GPU too, where they are slower. A
    CPU's give them anyway."""
    log_interval_steps: Count = 10
    """Optimizer steps between training records."""

    @model_validator(mode="after")
    def _workers_have_gpus_of_their_own(self) -> "Execution":
        if self.workers > 1 and self.gpu_share < 1:
            raise ValueError(
                f"execution.gpu_share={self.gpu_share:g} and execution.workers={self.workers}, "
                f"which would wait for each other on one GPU; set one of the two to 1"
            )
        return self

    @model_validator(mode="after")
    def _kernels_are_fixed(self) -> "Execution":
        if self.deterministic and self.compile == "max-autotune":
            raise ValueError(
                "execution.compile=max-autotune chooses kernels by their speed, in another process "
                "others, which execution.deterministic=true forbids; set execution.compile=default"
            )
        return self


class Tracking(Section):
    """Where metrics go beside metrics.jsonl."""

    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases; offline writes its files beneath the run directory."""
    project: str = "lmray"
    """Weights & Biases project."""
    tensorboard: bool = False
    """TensorBoard's files, in tensorboard/ beneath the run directory; needs lmray[tensorboard]."""
