"""A character language model: embeddings, a two-layer LSTM over carried state, clipping, sampling."""

import torch
from torch import nn

torch.manual_seed(0)
text = "she sells sea shells by the sea shore and the shells she sells are sea shells " * 6
vocabulary = sorted(set(text))
index_of = {c: i for i, c in enumerate(vocabulary)}
data = torch.tensor([index_of[c] for c in text], dtype=torch.long)
batch_size, steps = 6, 12
columns = data[: len(data) // batch_size * batch_size].view(batch_size, -1).t().contiguous()


class Model(nn.Module):
    def __init__(self, size, hidden, layers=2):
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.embed = nn.Embedding(size, hidden)
        self.rnn = nn.LSTM(hidden, hidden, layers, dropout=0.2)
        self.drop = nn.Dropout(0.2)
        self.decode = nn.Linear(hidden, size)
        self.decode.weight = self.embed.weight
        for name, p in self.rnn.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(p)
            elif "bias" in name:
                p.data.zero_()
                p.data[hidden : 2 * hidden].fill_(1.0)

    def forward(self, x, state):
        output, state = self.rnn(self.drop(self.embed(x)), state)
        return self.decode(self.drop(output)), state

    def initial(self, batch):
        weight = next(self.parameters())
        return weight.new_zeros(self.layers, batch, self.hidden), weight.new_zeros(self.layers, batch, self.hidden)


def detached(state):
    return state.detach() if isinstance(state, torch.Tensor) else tuple(detached(s) for s in state)


model = Model(len(vocabulary), 24)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
print(model, sum(p.numel() for p in model.parameters() if p.requires_grad))
state = model.initial(batch_size)
for i in range(0, len(columns) - 1 - steps, steps):
    x, y = columns[i : i + steps], columns[i + 1 : i + 1 + steps]
    state = detached(state)
    output, state = model(x, state)
    loss = criterion(output.view(-1, len(vocabulary)), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    print(f"{i:3d} {loss.item():.4f} {norm:.3f}")

model.eval()
with torch.no_grad():
    token, state, out = torch.tensor([[index_of["s"]]]), model.initial(1), []
    for _ in range(12):
        logits, state = model(token, state)
        token = torch.multinomial(torch.softmax(logits[-1] / 0.8, dim=-1), 1)
        out.append(vocabulary[token.item()])
print("".join(out))
