"""Measures how far HF transformers' own 16-bit runs of the golden models are from its float32 run: what rounding alone
does to their logits, and so what a test of another 16-bit implementation may allow.

    pip install torch transformers && python lim-model/tests/goldens/sixteen_bits.py [NAME ...]

Writes sixteen_bits.json beside this script; with names, those goldens are measured anew and the others kept:
    {made_on, models: {NAME: {bf16|f16: {prefill: {max, rms}, decode: {max, rms}}}}}
The numbers are distances of logits from the float32 run's, the largest and the root of the mean square: at the positions
that expected.json lists of a forward pass, and in all steps of a decode that is fed the golden's tokens. Of
transformers' two implementations of attention, eager and sdpa, which round at different places, the one that is further
off counts. Weights are converted, the rotary frequencies stay float32, as transformers does it. Runs on the GPU where
there is one; the float32 run is the CPU's.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, logging

HERE = Path(__file__).parent
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
ATTENTIONS = ("eager", "sdpa")


@torch.no_grad()
def logits(folder, expected, device, dtype, attention):
    """Those of the prefill's positions and those of every token of the decode, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to(device).eval()
    prefill, generate = expected["prefill"], expected["generate"]
    # A copy, since frequencies that follow the length (dynamic) stay with the model.
    ids = torch.tensor([prefill["ids"]], device=device)
    rows = copy.deepcopy(model)(ids).logits[0][prefill["positions"]]
    out = model(torch.tensor([generate["prompt"]], device=device), use_cache=True)
    steps = [out.logits[0, -1]]
    for token in generate["new"][:-1]:
        out = model(torch.tensor([[token]], device=device), past_key_values=out.past_key_values, use_cache=True)
        steps.append(out.logits[0, -1])
    return rows.float().cpu(), torch.stack(steps).float().cpu()


def distance(a, b):
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    return {"max": round((a - b).abs().max().item(), 6), "rms": round((a - b).square().mean().sqrt().item(), 6)}


def measure(folder, device):
    expected = json.loads((folder / "expected.json").read_text())
    exact = logits(folder, expected, "cpu", torch.float32, "sdpa")
    # The golden's own numbers, of another machine or version, must be those of this float32 run.
    assert distance(exact[0], torch.tensor(expected["prefill"]["logits"]))["max"] < 1e-4, folder
    assert distance(exact[1][-1], torch.tensor(expected["generate"]["last_logits"]))["max"] < 1e-4, folder
    found = {}
    for name, dtype in DTYPES.items():
        runs = {a: logits(folder, expected, device, dtype, a) for a in ATTENTIONS}
        found[name] = {}
        for i, part in enumerate(("prefill", "decode")):
            off = {a: distance(run[i], exact[i]) for a, run in runs.items()}
            print(f"{folder.name} in {name}, {part}: {off}", flush=True)
            found[name][part] = {key: max(o[key] for o in off.values()) for key in ("max", "rms")}
    return found


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(4)  # tiny models: more would wait for each other
    out = HERE / "sixteen_bits.json"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    models = json.loads(out.read_text())["models"] if sys.argv[1:] and out.exists() else {}
    for name in sys.argv[1:] or sorted(f.name for f in (HERE / "models").iterdir()):
        models[name] = measure(HERE / "models" / name, device)
    made_on = f"{where}, torch {torch.__version__}, transformers {transformers.__version__}"
    out.write_text(json.dumps({"made_on": made_on, "models": dict(sorted(models.items()))}, indent=1) + "\n")


if __name__ == "__main__":
    main()
