"""mmpose config of the tests' RTMPose: the shipped tiny one, made smaller still, for frames of 64 x 64 pixels.

The backbone ends at stride 8, without its last and largest stages, which a figure of 40 pixels does not need.
"""

_base_ = "mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-t_8xb256-420e_coco-256x192.py"

codec = dict(type="SimCCLabel", input_size=(64, 64), sigma=(2.0, 2.0))

model = dict(
    backbone=dict(
        # in and out channels at width 1, blocks, shortcut, spatial pyramid
        arch_ovewrite=[[64, 128, 3, True, False], [128, 256, 6, True, True]],
        widen_factor=0.25,
        out_indices=(2,),
        norm_cfg=dict(type="BN"),
        init_cfg=None,
    ),
    head=dict(
        in_channels=64,
        input_size=codec["input_size"],
        in_featuremap_size=(8, 8),
        gau_cfg=dict(hidden_dims=128, s=64),
        decoder=codec,
    ),
)

train_pipeline = [
    dict(type="GetBBoxCenterScale", padding=1.0),
    dict(type="RandomFlip", direction="horizontal"),
    dict(type="RandomBBoxTransform", shift_factor=0.1, scale_factor=[0.75, 1.25], rotate_factor=30),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="PhotometricDistortion"),
    dict(type="GenerateTarget", encoder={**codec, "simcc_split_ratio": 2.0, "normalize": False, "use_dark": False}),
    dict(type="PackPoseInputs"),
]
val_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale", padding=1.0),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="PackPoseInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
