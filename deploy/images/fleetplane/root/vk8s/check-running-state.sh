#!/bin/sh
echo False
