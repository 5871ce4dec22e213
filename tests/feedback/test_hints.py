import pytest

from amenable.errors import InputError
from amenable.feedback.hints import Layout, read_layout

CONFIG = """\ufeff<View>
  <Header value="Which is better?"/>
  <Pairwise name="pw" toName="txt-1,txt-2"/>
  <Text name="txt-1" value="$answer2"/><Text name="txt-2" value="$answer1"/>
  <List name="results" value="$items"/>
  <Ranker name="rank" toName="results"><Bucket name="good"/><Bucket name="bad"/></Ranker>
  <TextArea name="better" toName="txt-1"/>
</View>"""


def test_a_labelling_configuration_says_what_its_tags_show(tmp_path):
    (tmp_path / "config.xml").write_text(CONFIG, "utf-8")
    assert read_layout(tmp_path / "config.xml") == Layout(
        fields={"txt-1": "answer2", "txt-2": "answer1", "results": "items"},
        types={"pw": "pairwise", "rank": "ranker", "better": "textarea"},
        shows={"pw": "txt-1,txt-2", "rank": "results", "better": "txt-1"},
        buckets={"rank": ("good", "bad")},
    )
    assert read_layout(None) == Layout()


@pytest.mark.parametrize("content", [b"<View>", b"no xml", b'<View a="\xe9"/>', b""])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.xml: (no labelling configuration|not UTF-8)"):
        read_layout(tmp_path / "config.xml")
    with pytest.raises(InputError, match="no such file"):
        read_layout(tmp_path / "none.xml")
