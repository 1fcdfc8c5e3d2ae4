"""Types of the public names, which `__init__.py` loads on first use."""

from tasc._core import MergePlan as MergePlan
from tasc._core import NgramDrafter as NgramDrafter
from tasc._core import NgramRequest as NgramRequest
from tasc._core import TaskIndex as TaskIndex
from tasc.data import NgramTable as NgramTable
from tasc.data import Row as Row
from tasc.data import TaskTokenizer as TaskTokenizer
from tasc.data import TokenStore as TokenStore
from tasc.data import load_tokenizer as load_tokenizer
from tasc.data import read_rows as read_rows
from tasc.decoding.draft_model.drafter import ModelDrafter as ModelDrafter
from tasc.decoding.draft_model.eagle_drafter import EagleDrafter as EagleDrafter
from tasc.decoding.draft_model.hybrid import HybridDrafter as HybridDrafter
from tasc.decoding.generator import Generation as Generation
from tasc.decoding.generator import Generations as Generations
from tasc.decoding.generator import Generator as Generator
from tasc.decoding.generator import generate as generate
from tasc.decoding.grammar import Grammar as Grammar
from tasc.decoding.sampling import Sampling as Sampling
from tasc.decoding.stats import Stats as Stats
from tasc.decoding.submitted import GenerationFuture as GenerationFuture
from tasc.decoding.submitted import Piece as Piece
from tasc.drafting.protocol import SOURCES as SOURCES
from tasc.drafting.protocol import Draft as Draft
from tasc.drafting.protocol import Drafter as Drafter
from tasc.drafting.protocol import NullDrafter as NullDrafter
from tasc.drafting.protocol import Request as Request
from tasc.drafting.protocol import TokenDraft as TokenDraft
from tasc.training.distill.narrow_draft import DraftSize as DraftSize
from tasc.training.distill.options import DistillOptions as DistillOptions
from tasc.training.distill.run import distill as distill
from tasc.training.finetune.options import TuneOptions as TuneOptions
from tasc.training.finetune.tune import tune as tune
from tasc.vocab.surgery import extend_checkpoint as extend_checkpoint
from tasc.vocab.surgery import extend_model as extend_model
from tasc.vocab.vocabulary import extend_tokenizer as extend_tokenizer
from tasc.vocab.vocabulary import learn_vocabulary as learn_vocabulary

__version__: str
