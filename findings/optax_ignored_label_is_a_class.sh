#!/usr/bin/env bash
# Optax: the label -100, which PyTorch ignores, is a class of its own once the vocabulary is large.
#
# Guess: a padding label of -100, as Hugging Face's data collators write it, is ignored, or gives NaN, so that it shows.
# Instead: labels index the log-probabilities as NumPy would. With 50 classes -100 gives NaN; with 50 257 it means class
#   50 157, and -1 means the last class. The loss is finite and plausible.
# Why it matters: a toy test with a small vocabulary shows the mistake, the real run does not: it is trained to say
#   token 50 157 at every padded position.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import jax
import jax.numpy as jnp
import optax

print("optax", optax.__version__)
loss = optax.softmax_cross_entropy_with_integer_labels
logits = jax.random.normal(jax.random.key(0), (50257,))


def of(label, classes):
  return float(loss(logits[None, :classes], jnp.array([label]))[0])


for classes in (50, 50257):
  print(f"{classes} classes: loss of label -100 is {of(-100, classes):.4f}")
print(f"50257 classes: loss of label 50157 is {of(50157, 50257):.4f}")
pushed = jax.grad(lambda x: loss(x[None], jnp.array([-100]))[0])(logits)
print("a gradient step on label -100 raises the logit of class", int(pushed.argmin()))
same = of(-100, 50257) == of(50157, 50257) and of(-1, 50257) == of(50256, 50257)
if of(-100, 50) == of(-100, 50) or not same or int(pushed.argmin()) != 50157:
  sys.exit("changed: -100 was NaN of 50 classes and class 50157 of 50257")
EOF
