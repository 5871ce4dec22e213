from amenable.models.family import FOLDER, family, model_types, stem


def test_a_file_is_a_family_and_its_name_the_model_type():
    assert {"gpt2", "llama", "openai_gpt", "qwen3"} <= set(model_types())
    assert stem("openai-gpt") == "openai_gpt" and family("openai-gpt") is family("openai_gpt")
    for model_type in model_types():
        assert family(model_type).CLASSIFIER.endswith("ForSequenceClassification")


def test_a_family_is_short():
    """Code that families share is in other modules."""
    long = [path.name for path in FOLDER.glob("*.py") if len(path.read_text("utf-8").splitlines()) > 80]
    assert not long
