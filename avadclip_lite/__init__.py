"""avadclip_lite: AVadCLIP, audio-visual weakly supervised video anomaly detection, in the order of
the paper (arXiv 2504.04495). Where the text is, and where the code:

====================================================  ==============================================
frozen encoders (section 3.2)                         ``encoders.load_encoders``, ``load_text``
snippets, bags, weak labels                           ``dataset.FeatureStore``, ``TrainingSet``
video in context: local Transformer and graphs        ``temporal.VideoEncoder``
sound in context: temporal convolutions               ``temporal.TemporalConvNet``
(1) gate  W = sigmoid(Linear([x_v; x_a]))             ``fusion.AdaptiveFusion.gate``
(2) residual of both senses                           ``fusion.AdaptiveFusion.residual``
(3) x_av = x_v + W * residual                         ``fusion.AdaptiveFusion.forward``
learned words around each class, x_c                  ``prompts.TextualPrompt``
(4) the video's vector  x_p = Norm(a^T x_av)          ``prompts.global_vector``
(5) its similarity to each class                      ``prompts.AudioVisualPrompt.similarity``
(6) x_mp, each class's share of it                    ``prompts.AudioVisualPrompt.forward``
(7) x_cp = FFN(x_mp + x_c) + x_c                      ``prompts.AudioVisualPrompt.forward``
alignment map between snippets and classes            ``prompts.alignment_map``
(8) MIL-Align: Top-K, softmax over classes            ``losses.mil_align``, with ``losses.focal``
classification: Top-K binary cross-entropy            ``losses.topk_bce``
(9) (10) x_av given x_vs is Gaussian: its likelihood  ``losses.ukd``, ``kind="paper"``
(11) what distillation minimises                      ``losses.ukd``
the branch that predicts ln sigma^2                   ``model.LogVarianceHead``
a student's visual enhancement                        ``model.Enhancement``
contrast between normal and the rest (release only)   ``losses.text_contrast``
the sum of what a configuration asks for              ``losses.compute``
teacher and students, put together                    ``model.AVadCLIP``
training, and which epoch is kept                     ``train.fit``
frame AP and AUC, temporal mAP                        ``evaluate.evaluate``
every choice, and where paper and release differ      ``config.make_config``
====================================================  ==============================================

    from avadclip_lite.config import make_config, soundstage_path
    from avadclip_lite.dataset import FeatureStore
    from avadclip_lite.evaluate import evaluate
    from avadclip_lite.train import fit

    store = FeatureStore.open(soundstage_path())
    teacher = fit(make_config(), store).model
    print(evaluate(teacher, store).metrics["frame_ap_classification"])

CONTRIBUTING.md walks through the code, the sub-packages included.
"""

__version__ = "0.2.0"
