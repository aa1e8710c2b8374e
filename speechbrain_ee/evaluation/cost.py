"""stub"""
class CostModel:
    def __init__(self, model): self.model=model
    def macs(self, n): return tuple([n*(k+1) for k in range(len(self.model.exit_layers))])
    def parameters(self): return tuple([1]*len(self.model.exit_layers))
