"""mmpose config of the tests' RTMPose: the shipped tiny one, made smaller still, for crops of 128 x 128 pixels.

The backbone ends at stride 16, without its last and largest stage, which a figure of 40 pixels does not need.
"""

_base_ = "mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-t_8xb256-420e_coco-256x192.py"

codec = dict(type="SimCCLabel", input_size=(128, 128), sigma=(4.0, 4.0))

model = dict(
    backbone=dict(
        # in and out channels at width 1, blocks, shortcut, spatial pyramid
        arch_ovewrite=[[64, 128, 3, True, False], [128, 256, 6, True, False], [256, 512, 6, True, True]],
        widen_factor=0.25,
        out_indices=(3,),
        norm_cfg=dict(type="BN"),
        init_cfg=None,
    ),
    head=dict(
        in_channels=128,
        input_size=codec["input_size"],
        in_featuremap_size=(8, 8),
        gau_cfg=dict(hidden_dims=128, s=64),
        decoder=codec,
    ),
)

train_pipeline = [
    dict(type="GetBBoxCenterScale"),
    dict(type="RandomFlip", direction="horizontal"),
    dict(type="RandomBBoxTransform", shift_factor=0.1, scale_factor=[0.75, 1.25], rotate_factor=30),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="PhotometricDistortion"),
    dict(type="GenerateTarget", encoder={**codec, "simcc_split_ratio": 2.0, "normalize": False, "use_dark": False}),
    dict(type="PackPoseInputs"),
]
val_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="PackPoseInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
