"""The components that come with Atinuke, one kind a file, and the objectives, sources and tasks of `atinuke.pipelines`.

They are registered through the same hooks as everybody else's, and listing them imports none of them.
"""

from collections.abc import Iterable

from atinuke.core.component import Backend, Choice, Component, Rewrite
from atinuke.core.hookspecs import hookimpl
from atinuke.core.rewrite import PRUNE, VOCABULARY_LOSS


@hookimpl
def atinuke_components() -> Iterable[Component]:
    for name, target, summary, *strategy in COMPONENTS:
        yield Component(name, f"{__name__}.{target}", summary, *(f"{__name__}.strategies:{one}" for one in strategy))


@hookimpl
def atinuke_objectives() -> Iterable[Choice]:
    for name, target, summary in OBJECTIVES:
        yield Choice(name, f"atinuke.pipelines.{target}", summary)


@hookimpl
def atinuke_sources() -> Iterable[Choice]:
    for name, target, summary in SOURCES:
        yield Choice(name, f"atinuke.pipelines.{target}", summary)


@hookimpl
def atinuke_tasks() -> Iterable[Choice]:
    for name, target, summary in TASKS:
        yield Choice(name, f"atinuke.pipelines.tasks.{target}", summary)


@hookimpl
def atinuke_backends() -> Iterable[Backend]:
    for name, cls, summary in BACKENDS:
        yield Backend(
            name, f"atinuke.compile.backends.{name}:{cls}Builder", f"atinuke.runtime.{name}:{cls}Runner", summary
        )


@hookimpl
def atinuke_rewrites() -> Iterable[Rewrite]:
    yield VOCABULARY_LOSS
    yield PRUNE


# name, module:class, summary, and the strategy that draws its settings where they do not go together at random
COMPONENTS = (
    ("text.embedding", "text:TextEmbedding", "A learned vector for every token", "text_embedding"),
    ("position.sinusoidal", "position:SinusoidalPosition", "Adds the sines and cosines of Vaswani et al."),
    (
        "position.layerwise",
        "position:LayerwisePosition",
        "P_l: adds a sinusoidal encoding of each layer's own",
        "layerwise",
    ),
    ("position.learned", "position:LearnedPosition", "Adds a learned vector for every position"),
    ("position.rotary", "position:RotaryPosition", "Rotations of queries and keys, for attention.self", "rotary"),
    ("position.counted", "position:CountedPosition", "Positions among what is no padding, for position.ids", "counted"),
    ("position.alibi", "position:AlibiPosition", "A slope for every head, for attention.self"),
    (
        "position.relative",
        "relative:RelativePosition",
        "A bias for every head and distance, for attention.relative",
        "relative_position",
    ),
    ("attention.self", "attention:SelfAttention", "Multi-head attention of a text to itself", "self_attention"),
    ("attention.wide", "attention:WideAttention", "attention.self with heads of any width", "wide_attention"),
    (
        "attention.prefix",
        "prefix_attention:PrefixAttention",
        "Attention both ways within a prefix, causal behind it",
        "prefix_attention",
    ),
    ("dense", "feedforward:Dense", "A linear map and an activation"),
    (
        "attention.relative",
        "relative:RelativeAttention",
        "Multi-head attention with a bias for the distance (T5)",
        "relative_attention",
    ),
    ("feedforward.gelu", "feedforward:GELUFeedForward", "Two linear maps with GELU between them"),
    ("feedforward.relu", "feedforward:ReLUFeedForward", "Two linear maps with ReLU between them"),
    ("feedforward.swiglu", "feedforward:SwiGLUFeedForward", "Linear maps with a SiLU gate"),
    ("feedforward.geglu", "feedforward:GEGLUFeedForward", "Linear maps with a GELU gate"),
    ("feedforward.experts", "experts:MixtureOfExperts", "A mixture of experts with top-k routing", "experts"),
    ("adapter.bottleneck", "adapter:BottleneckAdapter", "A small network beside a frozen layer (Houlsby et al.)"),
    ("norm.layer", "norm:LayerNorm", "Layer normalisation of the last axis"),
    ("norm.rms", "norm:RMSNorm", "Root mean square normalisation of the last axis"),
    ("add", "structure:Add", "The sum of any number of wires"),
    ("concat", "structure:Concat", "Two texts a row, one after the other"),
    ("dropout", "dropout:Dropout", "Zeroes values at random while training", "dropout"),
    ("affine", "structure:Affine", "Times a number, plus a number"),
    ("identity", "structure:Identity", "Passes its input on"),
    ("mean", "structure:Mean", "The mean of all values"),
    ("head.vocabulary", "head:VocabularyHead", "The score of every token of the vocabulary", "vocabulary"),
    ("head.vocabulary_loss", "loss:VocabularyLoss", "Cross-entropy over the vocabulary, in chunks", "vocabulary_loss"),
    ("audio.logmel", "logmel:LogMel", "Whisper's log-mel spectrogram of a waveform", "mel_spectrogram"),
    ("audio.fbank", "logmel:FilterBank", "Kaldi's log-mel filter bank of a waveform", "filter_bank"),
    ("audio.normalise", "normalise:Normalise", "Mean 0 and variance 1 over each recording"),
    ("audio.specaugment", "specaugment:SpecAugment", "Hides stripes of a spectrogram while training", "specaugment"),
    ("audio.pad", "audio:AudioPad", "Zeros behind a recording up to a length"),
    ("audio.frames", "audio:AudioFrames", "Two convolutions over log-mel frames (Whisper)", "audio_frames"),
    ("audio.patches", "audio:AudioPatches", "Overlapping patches of a spectrogram (AST)", "audio_patches"),
    ("audio.waveform", "audio:AudioWaveform", "Strided convolutions over a waveform (wav2vec 2.0)", "audio_waveform"),
    (
        "attention.cross",
        "cross_attention:CrossAttention",
        "Multi-head attention to another sequence",
        "cross_attention",
    ),
    ("fusion.tag", "fusion:ModalityTag", "Adds a learned vector that tells a modality from others"),
    ("fusion.presence", "fusion:Presence", "The mask of a sequence that a row has or lacks as a whole"),
    ("fusion.concat", "fusion:ConcatFusion", "Two sequences with their masks, one after the other"),
    ("fusion.gate", "fusion:GateFusion", "A mixture of two vectors in learned shares"),
    ("fusion.late", "fusion:LateFusion", "The weighted mean of what two or three modalities say"),
    ("fusion.resampler", "resampler:Resampler", "A sequence into a fixed number of learned latents", "resampler"),
    (
        "fusion.dropout",
        "fusion:ModalityDropout",
        "Hides one of two modalities of a row while training",
        "modality_dropout",
    ),
    ("pool.mean", "pool:MeanPool", "The mean over the positions that count"),
    ("pool.first", "pool:FirstPool", "The first position that counts: a class token"),
    ("pool.token", "pool:TokenPool", "The first position of a token: the end of a text"),
    ("pool.last", "pool:LastPool", "The last position that counts"),
    ("pool.attention", "pool:AttentionPool", "What a learned query finds", "attention_pool"),
    ("head.classification", "head:ClassificationHead", "The score of every class"),
    ("head.regression", "head:RegressionHead", "One number"),
    ("head.projection", "head:ProjectionHead", "A vector of length 1 in a space that modalities share"),
    ("head.similarity", "head:SimilarityHead", "The score of every pair of two vectors (CLIP)"),
    ("loss.cross_entropy", "loss_supervised:CrossEntropyLoss", "Cross-entropy over classes, with label smoothing"),
    ("loss.regression", "loss_supervised:RegressionLoss", "The mean squared error"),
    (
        "loss.span",
        "loss_supervised:SpanLoss",
        "The right positions, such as first and last of an answer",
    ),
    (
        "span.vectors",
        "span:SpanVectors",
        "A vector for each span: its ends, its head and its length (Lee et al.)",
        "span_vectors",
    ),
    ("span.best", "span:BestSpans", "The spans with the highest scores, in the order of the text", "span_best"),
    (
        "head.antecedents",
        "coreference:AntecedentHead",
        "The score of each span before a span as its antecedent",
        "antecedents",
    ),
    ("loss.mentions", "coreference:MentionLoss", "Which spans are mentions"),
    ("loss.antecedents", "coreference:AntecedentLoss", "Any antecedent of the right cluster (Lee et al.)"),
    ("loss.contrastive", "loss_contrastive:ContrastiveLoss", "Pairs among all others, both ways (CLIP)"),
    ("loss.sigmoid_contrastive", "loss_contrastive:SigmoidContrastiveLoss", "Each pair by itself (SigLIP)"),
    (
        "loss.supervised_contrastive",
        "loss_contrastive:SupervisedContrastiveLoss",
        "Rows of one label together, all others apart",
    ),
    ("metric.accuracy", "metric:Accuracy", "The share of labels that have the highest score"),
    ("loss.ctc", "loss_ctc:CTCLoss", "Labels in order without their places", "ctc"),
    # sight, and text beyond the decoder
    ("vision.normalise", "picture:Normalise", "Pixels less their mean, by their deviation", "normalise"),
    ("vision.resize", "picture:Resize", "Pictures of any size to one size"),
    ("vision.augment", "picture:Augment", "Flips, moves and erases parts of pictures while training", "augment"),
    ("vision.patches", "vision:PatchEmbedding", "A vector for every square of a picture", "patches"),
    ("vision.stem", "vision:ConvolutionalStem", "Convolutions that halve a picture", "stem"),
    ("flatten.grid", "vision:FlattenGrid", "The vectors of a grid one after another"),
    (
        "position.grid_sinusoidal",
        "position2d:GridSinusoidalPosition",
        "Adds waves of row and column",
        "grid_sinusoidal",
    ),
    ("position.grid_learned", "position2d:GridLearnedPosition", "Adds a learned vector for every place of a grid"),
    ("position.ids", "position:PositionIds", "Adds a learned vector for the position that is said", "position_ids"),
    ("token.class", "token:ClassToken", "A learned vector in front of a sequence"),
    ("text.segments", "text:SegmentEmbedding", "Adds a learned vector for the segment"),
    ("text.bytes", "text:ByteEmbedding", "A vector for every byte, or every few", "text_bytes"),
)

OBJECTIVES = (
    ("causal", "objective_text:Causal", "Predict each next token"),
    ("seq2seq", "objective_text:Seq2Seq", "Predict each next token of a target, given what else the graph reads"),
    ("answers", "objective_text:Answers", "Predict what the assistant says in conversations"),
    ("masked", "objective_text:Masked", "Predict tokens that are hidden (BERT)"),
    ("classification", "objective_labels:Classification", "Cross-entropy against classes, and the accuracy"),
    ("regression", "objective_labels:Regression", "The mean squared error"),
    ("span", "objective_labels:Span", "The positions where something begins and ends"),
    ("coreference", "objective_coreference:Coreference", "Mentions, and which of those before them mean the same"),
    ("contrastive", "objective_labels:Contrastive", "Two vectors of a row together, others apart (CLIP, SigLIP)"),
    (
        "supervised_contrastive",
        "objective_labels:SupervisedContrastive",
        "Vectors of one label together, all others apart",
    ),
    ("ctc", "objective_labels:CTC", "Labels in order without their places"),
    ("given", "objective_labels:Given", "The losses that the graph gives itself"),
    ("sum", "objective_sum:Sum", "Several objectives at once, each with its weight"),
)

SOURCES = (
    ("manifest", "rows:Manifest", "JSON lines, an object a row"),
    ("folders", "rows:Folders", "A folder of files for each class"),
    ("table", "rows:Table", "CSV, TSV or Parquet"),
    ("sentences", "sentences:Sentences", "Pairs of neighbouring sentences of texts, half of them exchanged"),
    ("datasets", "rows:Datasets", "A Hugging Face data set"),
)

TASKS = (
    ("cola", "glue:CoLA", "Is it English? (GLUE)"),
    ("sst2", "glue:SST2", "Is a film review good or bad? (GLUE)"),
    ("mrpc", "glue:MRPC", "Do two sentences say the same? (GLUE)"),
    ("stsb", "glue:STSB", "How alike are two sentences, 0 to 5? (GLUE)"),
    ("qqp", "glue:QQP", "Do two questions ask the same? (GLUE)"),
    ("mnli", "glue:MNLI", "Does one sentence follow from another? (GLUE)"),
    ("qnli", "glue:QNLI", "Does a sentence answer a question? (GLUE)"),
    ("rte", "glue:RTE", "Does one sentence follow from another? (GLUE)"),
    ("wnli", "glue:WNLI", "What does a pronoun stand for? (GLUE)"),
    ("snli", "nli:SNLI", "Does one sentence follow from another?"),
    ("anli", "nli:ANLI", "Does one sentence follow from another, where models failed?"),
    ("classification", "classification:Classification", "Which label has a text? (any table)"),
    ("retrieval", "retrieval:Retrieval", "Which text belongs to a text, such as its translation?"),
    ("squad", "squad:SQuAD", "Where in a text is the answer? (v1.1)"),
    ("squad2", "squad:SQuAD2", "Where in a text is the answer, if anywhere? (v2.0)"),
    ("coreference", "coreference:Coreference", "Which mentions mean the same? (CoNLL-2012, LitBank, GUM)"),
    ("gap", "gap:GAP", "Which of two names does a pronoun mean? (GAP)"),
    ("srl", "srl:SRL", "Who did what to whom? (CoNLL-2005, CoNLL-2012, Universal PropBank)"),
    ("perplexity", "perplexity:Perplexity", "How probable does a decoder find texts?"),
    ("transcription", "written:Transcription", "What is said in a sound?"),
    ("translation", "written:Translation", "What is a text in another language?"),
)

BACKENDS = (
    ("onnx", "Onnx", "ONNX files, run by ONNX Runtime on CPUs"),
    ("openvino", "OpenVINO", "OpenVINO's files, run by OpenVINO on CPUs"),
    ("tensorrt", "TensorRT", "TensorRT engines for NVIDIA GPUs"),
    ("aot", "Aot", "Native code by AOTInductor for this kind of machine, run by torch without the model's code"),
    ("inductor", "Inductor", "torch.compile where the model runs, from the graph and the weights of the bundle"),
    ("executorch", "Executorch", "ExecuTorch with XNNPACK for phones and edge CPUs (experimental)"),
)
