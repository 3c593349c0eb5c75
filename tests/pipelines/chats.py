"""Chat templates of the kinds there are, and a tokenizer that has their special tokens."""

from transformers import PreTrainedTokenizerFast

from atinuke.pipelines.chat import Template
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.tokenizer import END_OF_TEXT

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BYTES = Tokenizer.train([], 257 + len(SPECIAL), special_tokens=SPECIAL)

CHATML = """{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

MARKED = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- message.content + '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + \
message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}\
{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

INST = """{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] %}{% set rest = messages[1:] %}\
{% else %}{% set said = false %}{% set rest = messages %}{% endif %}{% for message in rest %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (said + '\\n' if loop.first and said else '') + \
message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}\
{% endfor %}"""

NAMESPACE = """{%- set ns = namespace(seen=0, tools=tools is not none) -%}
{%- for message in messages %}
{%- if message.role not in ['user', 'assistant', 'system'] %}{% continue %}{% endif %}
{%- set ns.seen = ns.seen + 1 %}
<{{ message.role | upper }} {{ ns.seen }}> {{ message | tojson }}{{ eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
<ASSISTANT {{ ns.seen + 1 }}> {"role": "assistant", "content": "{% endif %}"""

TEMPLATES = {"chatml": CHATML, "marked": MARKED, "llama3": LLAMA3, "inst": INST, "namespace": NAMESPACE}
NAMED = {"bos_token": "<|begin_of_text|>", "eos_token": END_OF_TEXT}


def ours(name: str) -> Template:
    return Template(TEMPLATES[name], NAMED)


def theirs(name: str) -> PreTrainedTokenizerFast:
    inner = Tokenizer(BYTES.content)._inner
    inner.encode_special_tokens = False
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=TEMPLATES[name], **NAMED)
